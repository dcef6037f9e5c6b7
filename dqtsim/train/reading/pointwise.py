"""Pointwise functions."""

from torch import fx

from dqtsim.train.reading.clamps import activation_of
from dqtsim.train.reading.export import arguments, called
from dqtsim.train.reading.reader import Handler, Reader
from dqtsim.train.steps import Rectify


def _rectify(reader: Reader, node: fx.Node) -> None:
    source = reader.source(node, arguments(node)["self"])
    activation = activation_of(node)
    if activation is None:
        raise reader.refuse(node)
    name = reader.named(node, "relu")
    reader.put(Rectify(name, (source,), reader.shape(node), True, activation), [node])


def _dropout(reader: Reader, node: fx.Node) -> None:
    raise reader.refuse(node, "must not draw random numbers in eval mode; a dropout takes training=self.training")


def _norm(reader: Reader, node: fx.Node) -> None:
    raise reader.refuse(
        node, f"must be the only reader of a convolution or Linear to be folded into it, but reads '{called(node)}'"
    )


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp", "clamp_min"), _rectify),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "bernoulli"), _dropout),
    "_native_batch_norm_legit_no_training": _norm,
}
