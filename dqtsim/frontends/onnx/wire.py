"""The outermost fields of a serialized ModelProto, found without parsing their content.

A field is a key (number << 3 | kind) and a value: a varint (kind 0), 8 bytes (1), a length and bytes (2), 4 bytes (5).
"""

from collections.abc import Iterator

from ...errors import ModelError
from ...graph.schema import DOMAIN
from ...limits import FIELDS

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_GRAPH, _OPSET, _METADATA = 7, 8, 14
# number: kind; ir_version and model_version are varints, all others texts or messages
_KINDS = {1: _VARINT, 5: _VARINT} | dict.fromkeys((2, 3, 4, 6, _GRAPH, _OPSET, _METADATA, 20, 25, 26), _BYTES)


def is_model(data: bytes) -> bool:
    """Return whether `data` consists of whole fields that a ModelProto may have, its graph among them."""
    try:
        return _GRAPH in {number for number, _ in fields(data)}
    except ValueError:
        return False


def is_nested(data: bytes, path: str) -> bool:
    """Return whether a model claims to be nested, by its metadata or by the domains that it imports."""
    from google.protobuf.message import DecodeError
    from onnx import OperatorSetIdProto, StringStringEntryProto

    try:
        for number, content in fields(data):
            if number == _METADATA and StringStringEntryProto.FromString(content).key == "dqtsim.format":
                return True
            if number == _OPSET and OperatorSetIdProto.FromString(content).domain == DOMAIN:
                return True
    except (ValueError, DecodeError):
        raise ModelError(f"the model file '{path}' is not an ONNX file: it does not parse.") from None
    return False


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of every field; a graph and numbers are given without bytes. Raises ValueError."""
    place = count = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if not number or kind != _KINDS.get(number, kind):
            raise ValueError(f"field {number} of kind {kind}")
        size = 0
        if kind == _VARINT:
            _, place = _varint(data, place)
        elif kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"kind {kind}")
        count += 1
        if size > len(data) - place or count > FIELDS:
            raise ValueError("cut off, or too many fields")
        yield number, data[place : place + size] if number in (_OPSET, _METADATA) else b""
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of at most 64 bits, seven bits a byte from the lowest, and where it ends."""
    value = 0
    for index, byte in enumerate(data[place : place + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, place + index + 1
    raise ValueError("a number without an end")
