"""What people hand to `prepare`, `calibrate` and `export`: taken, or refused with its cure."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dqtsim.errors import InputError, ModelError
from dqtsim.train import NestedConfig, NestingRules, calibrate, export, given, prepare
from dqtsim.train.modules.base import Uniform

SHAPE = (3, 4, 5)
PICTURES = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
TAKES = "prepare takes a torch.nn.Module with parameters of float32"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()


def joined(batches: object) -> list[Any]:
    return [batch.tolist() for batch in given.batches(batches, SHAPE)]


def generated() -> Iterator[torch.Tensor]:
    yield PICTURES


ONE = [PICTURES.tolist()]
SINGLE = [[picture.tolist()] for picture in PICTURES]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (PICTURES, ONE),
        (PICTURES.numpy(), ONE),
        ([PICTURES], ONE),
        ([PICTURES.contiguous(memory_format=torch.channels_last)], ONE),
        ((PICTURES.numpy(),), ONE),
        (generated(), ONE),
        ([(PICTURES, torch.zeros(6, dtype=torch.int64))], ONE),
        ([[PICTURES.numpy(), np.zeros(6)]], ONE),
        (DataLoader(TensorDataset(PICTURES, torch.zeros(6)), batch_size=6), ONE),
        (DataLoader(TensorDataset(PICTURES), batch_size=1), SINGLE),
        (TensorDataset(PICTURES, torch.zeros(6)), SINGLE),
        (list(PICTURES), SINGLE),
        (PICTURES[0], SINGLE[:1]),
        (PICTURES.numpy()[0].transpose(1, 2, 0).copy().transpose(2, 0, 1), SINGLE[:1]),
        ([], []),
    ],
)
def test_batches_that_are_taken(batches: object, expected: list[Any]) -> None:
    assert joined(batches) == expected


SIZE = "pictures must be [N, 3, 4, 5], but these are"
SCALED = "give the codes before they were scaled, and say in NestedConfig what they stand for."
FLOAT = "pictures are uint8 codes, 0 to 255, but these are"
BATCH = "a batch is a tensor or an array of pictures, or (pictures, labels), but not a"


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        (PICTURES.permute(0, 2, 3, 1),
         f"{SIZE} [6, 4, 5, 3]; the channels are last, give pictures.permute(0, 3, 1, 2)."),
        ([PICTURES[0].permute(1, 2, 0)],
         f"{SIZE} [4, 5, 3]; the channels are last, give picture.permute(2, 0, 1)."),
        ([PICTURES[:, :2]], f"{SIZE} [6, 2, 4, 5]."),
        ([PICTURES[0, 0]], f"{SIZE} [4, 5]."),
        ([PICTURES.float()], f"{FLOAT} float32; give them with .to(torch.uint8)."),
        ([PICTURES.numpy().astype(np.uint16)], f"{FLOAT} uint16; give them with .to(torch.uint8)."),
        ([PICTURES.long()], f"{FLOAT} int64; give them with .to(torch.uint8)."),
        ([PICTURES.long() - 128], f"{FLOAT} int64."),
        ([PICTURES / 255], f"{FLOAT} float32; {SCALED}"),
        ([PICTURES.half() - 0.5], f"{FLOAT} float16; {SCALED}"),
        ([np.array(["a"])], f"{FLOAT} <U1."),
        ((PICTURES, torch.zeros(6, dtype=torch.int64)), f"{FLOAT} int64; give them with .to(torch.uint8)."),
        ([{"pixels": PICTURES}], f"{BATCH} dict."),
        ([[1, 2]], f"{BATCH} list of int, int."),
        ([()], f"{BATCH} tuple of nothing."),
        ("pictures", "batches of pictures are a tensor, an array, a list or a DataLoader, but not a str."),
        ({"train": [PICTURES]}, "batches of pictures are a tensor, an array, a list or a DataLoader, but not a dict."),
        (7, "batches of pictures are a tensor, an array, a list or a DataLoader, but not a int."),
    ],
)  # fmt: skip
def test_batches_that_are_refused(batches: object, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        joined(batches)
    assert str(raised.value) == sentence


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyConv2d(4, 3)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.DataParallel(net()), ", not a DataParallel; unwrap it with model.module."),
        (torch.compile(net()), ", not what torch.compile returns; give the network before torch.compile."),
        (net().half(), ", but '0.weight' is float16; give float32, with model.float()."),
        (net().double(), ", but '0.weight' is float64; give float32, with model.float()."),
        (net().bfloat16(), ", but '0.weight' is bfloat16; give float32, with model.float()."),
        (nn.Sequential(net()[0], net()[3].double()), ", but '1.weight' is float64; give float32, with model.float()."),
        (nn.Conv2d(3, 4, 3, dtype=torch.complex64), ", but 'weight' is complex64."),
        (nn.Conv2d(3, 4, 3, device="meta"), ", but 'weight' is on the device meta and has no values; load them first."),
        (Lazy(), ", but 'layer.weight' has no shape yet; run a picture through the network first."),
        (OrderedDict(net().state_dict()),
         ", not a OrderedDict; load a state_dict into its network with load_state_dict."),
        (nn.ReLU, ", not the class ReLU; make a network of it first."),
        ("resnet.pt", ", not a str."),
    ],
)  # fmt: skip
def test_networks_that_are_refused(model: Any, sentence: str) -> None:
    with pytest.raises(ModelError) as raised:
        prepare(model)
    assert str(raised.value) == TAKES + sentence


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_script_is_refused() -> None:
    traced = torch.jit.trace(net(), torch.zeros(1, *SHAPE))  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError) as raised:
        prepare(traced)
    assert str(raised.value) == f"{TAKES}, not a TorchScript module; give the Python network from which it was made."


def test_calibrate_and_export_take_them(tmp_path: Path) -> None:
    def nested(batches: object) -> Any:
        rules = NestingRules(candidates=((8, 8),))
        return calibrate(prepare(net(), NestedConfig(rules, SHAPE)), batches)

    plain = nested([PICTURES])
    labelled = nested(DataLoader(TensorDataset(PICTURES, torch.zeros(6)), batch_size=6))
    assert torch.equal(plain(PICTURES, Uniform(0)), labelled(PICTURES, Uniform(0)))
    export(plain, PICTURES[:1], tmp_path / "one.onnx")
    export(labelled, PICTURES[0].numpy(), str(tmp_path / "two.onnx"), golden=str(tmp_path / "vectors"))
    assert (tmp_path / "two.onnx").stat().st_size == (tmp_path / "one.onnx").stat().st_size
    names = sorted(path.name for path in (tmp_path / "vectors").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one-golden").iterdir())


def test_a_wrong_path_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        given.path(7)  # type: ignore[arg-type]
    assert str(raised.value) == "an output is named by a path, but it is a int."
