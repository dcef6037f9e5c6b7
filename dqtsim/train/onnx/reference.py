"""onnxruntime on the file itself: the reference for what the reader makes of it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dqtsim.errors import InputError, ModelError
from dqtsim.train.onnx.network import FloatFile

Array = npt.NDArray[Any]
# Both compute in float32, in another order; the bound is relative to the largest value.
BOUND = 1e-3


def check(file: FloatFile, pictures: torch.Tensor) -> None:
    """Raise ModelError unless the network gives what onnxruntime gives for `pictures` [N, C, H, W] of float32."""
    expected = outputs(file, pictures.numpy())
    with torch.no_grad():
        found = file.network(pictures)
    results = [found] if isinstance(found, torch.Tensor) else list(found)
    for name, one, other in zip(file.outputs, results, expected, strict=True):
        _same(name, one.numpy(), other)


def _same(name: str, found: Array, expected: Array) -> None:
    if found.shape != expected.shape:
        raise ModelError(
            f"the output '{name}' as read must be onnxruntime's, but is {list(found.shape)} where onnxruntime gives "
            f"{list(expected.shape)}."
        )
    if not np.isfinite(expected).all():
        raise ModelError(f"a network must give finite values, but its output '{name}' does not in onnxruntime.")
    apart, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not apart <= BOUND * largest:
        raise ModelError(
            f"the output '{name}' as read must be onnxruntime's, but they are up to {apart:.3g} apart, where the "
            f"largest value is {largest:.3g}."
        )


def outputs(file: FloatFile, pictures: Array) -> list[Array]:
    """Onnxruntime's outputs of the file for pictures [N, C, H, W] of float32.

    Raises InputError without onnxruntime, ModelError where it cannot run the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError('the reference is onnxruntime; install it with pip install "dqtsim[oracle]".') from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    size = file.batch or len(pictures)
    given = pictures.transpose(0, 2, 3, 1) if file.channels_last else pictures
    try:
        session = onnxruntime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        parts = []
        for start in range(0, len(given), size):
            part = given[start : start + size]
            # A file for a fixed number of pictures gets the last one again and again.
            whole = np.concatenate([part, *[part[-1:]] * (size - len(part))])
            found = session.run(list(file.outputs), {file.source: np.ascontiguousarray(whole)})
            parts.append([np.asarray(value)[: len(part)] for value in found])
    except Exception as error:
        raise ModelError(f"onnxruntime cannot run '{file.path}': {' '.join(str(error).split())[:200]}.") from None
    return [np.concatenate(values) for values in zip(*parts, strict=True)]
