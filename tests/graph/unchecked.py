"""Files as the writer would never write them: those of graphs that break a rule."""

import onnx
from onnx import TensorProto, helper, numpy_helper

from dqtsim.graph import Graph, to_onnx
from dqtsim.graph.file.writer import metadata

DTYPES = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


def written(graph: Graph, sound: Graph) -> onnx.ModelProto:
    """Return the file of `graph`, which was made from `sound` by other nodes, arrays, outputs or metadata."""
    model = to_onnx(sound)
    proto = model.graph
    del proto.node[:], model.metadata_props[:]
    for node in graph.nodes:
        made = helper.make_node(node.operator, node.inputs, node.outputs, node.name, domain=node.domain)
        made.attribute.extend(helper.make_attribute(name, value) for name, value in node.attributes.items())
        proto.node.append(made)
    kept = [tensor for tensor in proto.initializer if tensor.name not in {*sound.initializers, *graph.initializers}]
    del proto.initializer[:]
    proto.initializer.extend([numpy_helper.from_array(array, name) for name, array in graph.initializers.items()])
    proto.initializer.extend(kept)
    del proto.output[:]
    for value in graph.outputs:
        proto.output.append(helper.make_tensor_value_info(value.name, DTYPES[value.dtype], value.shape))
    helper.set_model_props(model, metadata(graph))
    return model
