"""A picture as a PNG inside the page, without an imaging library."""

import base64
import struct
import zlib

import numpy as np

from ...graph.model import Array


def data_uri(picture: Array) -> str:
    """Return the picture uint8 (3, H, W) as a data URI."""
    return "data:image/png;base64," + base64.b64encode(encode(picture)).decode("ascii")


def encode(picture: Array) -> bytes:
    """Return the picture uint8 (3, H, W) as a PNG file: 8-bit RGB, no filter."""
    _, height, width = picture.shape
    rows = np.ascontiguousarray(picture.transpose(1, 2, 0)).reshape(height, 3 * width)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
