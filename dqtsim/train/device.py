"""The device and the precision of a run, decided when it begins."""

import copy
import dataclasses
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from dqtsim.errors import InputError
from dqtsim.train import networks
from dqtsim.train.config import Device, Precision, TrainConfig

Module = TypeVar("Module", bound=nn.Module)

# oneDNN's blocks of input channels: 8 with AVX2, 16 with AVX-512.
_BLOCK = 16


def settled(config: TrainConfig, begun: TrainConfig | None) -> TrainConfig:
    """`config` without "auto": as in `begun` if the run resumes, otherwise the best choice on this machine.

    Raises InputError for a GPU that is not there.
    """
    device = config.device if config.device != "auto" else begun.device if begun else _device()
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda needs a GPU that PyTorch can use, but there is none; take device cpu.")
    precision = config.precision if config.precision != "auto" else begun.precision if begun else _precision(device)
    return dataclasses.replace(config, device=device, precision=precision)


def _device() -> Device:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _precision(device: Device) -> Precision:
    """bfloat16 if the device has instructions for it; without them it is many times slower than float32."""
    if device == "cuda":
        native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        native = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Convolutions in bfloat16, if `dtype` is that."""
    return torch.autocast(device.type, torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()


def of(module: nn.Module) -> torch.device:
    """The device of a module, all of which is on one."""
    return next(module.parameters()).device


def on_cpu(module: Module) -> Module:
    """`module`, or a copy on the CPU if it is elsewhere."""
    return module if of(module).type == "cpu" else copy.deepcopy(module).cpu()


def sound_convolutions(config: TrainConfig) -> AbstractContextManager[None]:
    """PyTorch's own convolutions instead of oneDNN's, if oneDNN's would be wrong for the run's network.

    oneDNN writes past its workspace (its issue 6035) in the weight gradient of a strided 1x1 convolution of
    channels-last float32 with fewer input channels than a block: the process crashes, hangs or learns from wrong
    gradients. Only networks made very narrow have such a layer.
    """
    if config.device != "cpu" or config.precision != "float32":
        return nullcontext()
    with torch.device("meta"):
        network = networks.build(config.network, 2, config.width)
    narrow = any(
        set(module.kernel_size) == {1} and set(module.stride) != {1} and module.in_channels < _BLOCK
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    )
    return torch.backends.mkldnn.flags(enabled=False, allow_tf32=None) if narrow else nullcontext()
