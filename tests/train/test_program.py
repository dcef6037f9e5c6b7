"""Programs of torch.export: read with their names, and refused where reading could run code."""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from torch import nn
from torch.export import Dim

from dqtsim.errors import InputError, ModelError
from dqtsim.train.program import read

pytestmark = pytest.mark.filterwarnings("ignore")
ONLY = (
    "a program may hold plain tensors and calls of ATen operators only, because more could run code while it is read, "
    "but"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.stem(x).mean((2, 3)))
        return result


def saved(path: Path, model: nn.Module, batch: int = 2, **options: Any) -> Path:
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(batch, 3, 6, 5),), **options), path)
    return path


def test_a_program_is_read_with_its_names(tmp_path: Path) -> None:
    model = Net()
    forms: list[dict[str, Any]] = [{}, {"dynamic_shapes": ({0: Dim("n")},)}]
    for options in forms:
        found = read(saved(tmp_path / "a.pt2", model, **options))
        assert found.shape == (3, 6, 5)
        assert [name for name, _ in found.network.named_parameters()] == [name for name, _ in model.named_parameters()]
        x = torch.randn(2, 3, 6, 5)
        assert torch.equal(copy.deepcopy(found.network)(x), model(x))


def rewritten(path: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes] | None = None) -> Path:
    """Change every file of an archive, and add others."""
    with zipfile.ZipFile(path) as archive:
        content = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, **(more or {})}.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as raised:
        read(path)
    return str(raised.value)


def replaced(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, data: data.replace(old, new) if name.endswith(".json") else data


class Touch:
    """What would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_what_could_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "a.pt2", tmp_path / "made"
    saved(path, Net())
    assert refusal(rewritten(path, replaced(b"torch.ops.aten.relu.default", b"torch.hub.load"))) == (
        f"{ONLY} '{path}' has a call of 'torch.hub.load'."
    )
    saved(path, Net())
    assert refusal(rewritten(path, replaced(b'"use_pickle": false', b'"use_pickle": true'))) == (
        f"{ONLY} '{path}' has a pickled tensor."
    )
    saved(path, Net())
    assert refusal(rewritten(path, lambda _, data: data, {"a/data/aotinductor/model/x.so": b""})) == (
        f"{ONLY} '{path}' has 'a/data/aotinductor/model/x.so'."
    )
    saved(path, Net(), dynamic_shapes=({0: Dim("n")},))
    sizes = f"__import__('pathlib').Path({str(made)!r}).touch()"

    def evil(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        tree = json.loads(data)

        def visit(part: Any) -> None:
            for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
                visit(value)
            if isinstance(part, dict) and "expr_str" in part:
                part["expr_str"] = sizes

        visit(tree)
        return json.dumps(tree).encode()

    assert refusal(rewritten(path, evil)) == f"{ONLY} '{path}' has the size '{sizes[:60]}...'."
    saved(path, Net())
    buffer = io.BytesIO()
    torch.save(Touch(made), buffer)

    def pickled(name: str, data: bytes) -> bytes:
        return buffer.getvalue() if name.endswith("sample_inputs/model.pt") else data

    assert refusal(rewritten(path, pickled)).startswith(f"'{path}' is no program of torch.export: Weights only load")
    assert not made.exists()


def test_files_that_are_no_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(raised.value) == f"the model file '{path}' cannot be read: no such file or directory."
    path.write_bytes(b"PK\x03\x04 and no more")
    assert refusal(path) == f"'{path}' is no program of torch.export: File is not a zip file."
    torch.save({"weight": torch.zeros(1)}, path)
    assert refusal(path) == f"{ONLY} '{path}' has 'a/data.pkl'."


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(90, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(x.view(x.shape[0], 90))
        return result


def test_a_program_for_one_picture_says_how_to_export_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt2", Fixed(), 1)
    assert refusal(path) == (
        "a program must take any number of pictures; export 'a.pt2' with dynamic_shapes=({0: torch.export.Dim('n')},)."
    )
