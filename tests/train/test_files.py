"""Image folders larger than memory: decoded when needed, cropped by rule, the same whatever the threads."""

import dataclasses
import gc
import hashlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from click.testing import CliRunner
from PIL import Image

from dqtsim import load
from dqtsim.cli import main
from dqtsim.errors import InputError
from dqtsim.inputs import decode
from dqtsim.train import ExportConfig, export_run, loop, train
from dqtsim.train import files as picture_files
from dqtsim.train.config import TrainConfig
from dqtsim.train.data import Split, read_dataset
from dqtsim.train.files import PictureFiles, central_box, in_parts, random_box

from .conftest import tiny_config

SIZES = ((40, 56), (64, 32), (33, 47), (50, 50))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image folder of three classes, PNG and JPEG, of four sizes, grey and palette pictures among them."""
    home, generator = tmp_path_factory.mktemp("folder"), np.random.default_rng(5)
    for split, count in (("train", 16), ("val", 5)):
        for label in range(3):
            where = home / split / f"class{label}"
            where.mkdir(parents=True)
            for i in range(count):
                width, height = SIZES[i % len(SIZES)]
                pixels = generator.normal(60 + 70 * label, 25, (height, width, 3)).clip(0, 255).astype(np.uint8)
                image = Image.fromarray(pixels)
                image = image.convert("L") if i == 3 else image.convert("P") if i == 4 else image
                image.save(where / f"{i:03d}.{'png' if i % 2 or i == 4 else 'jpg'}")
    return home


def config(folder: Path, out: Path, **options: Any) -> TrainConfig:
    return dataclasses.replace(tiny_config(folder, out), batch_size=16, float_epochs=1, size=24, **options)


def classes(pictures: torch.Tensor) -> torch.Tensor:
    """Return the class of each picture, which its brightness tells."""
    return ((pictures.float().mean((1, 2, 3)) - 60) / 70).round().long()


def epoch(split: Split, threads: int | None, seed: int = 3) -> list[torch.Tensor]:
    assert isinstance(split.images, PictureFiles)
    split = Split(dataclasses.replace(split.images, threads=threads), split.labels)
    return [part for pair in split.batches(10, torch.Generator().manual_seed(seed)) for part in pair]


def test_pictures_are_cropped_and_scaled_by_rule(folder: Path) -> None:
    data = read_dataset(folder, 24)
    assert data.shape == (3, 24, 24)
    assert (len(data.train), len(data.test), data.class_names) == (48, 15, ("class0", "class1", "class2"))
    assert data.test.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    # 64x32 and 7/8 of 32: the square from (18, 2) to (46, 30).
    with Image.open(folder / "val" / "class1" / "001.png") as image:
        expected = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR, (18, 2, 46, 30)))
    assert np.array_equal(data.test.images[6:7][0].permute(1, 2, 0).numpy(), expected)
    index = torch.tensor([14, 0, 6])
    assert torch.equal(data.test.images[index], data.test.images[:][index])
    assert data.fingerprint() == hashlib.sha256(data.test.images[:].numpy().tobytes()).hexdigest()
    assert central_box(256, 300) == (16, 38, 240, 262)


def test_random_boxes_lie_inside_and_are_of_the_usual_sizes() -> None:
    generator = np.random.default_rng(1)
    shares = []
    for width, height in ((500, 375), (32, 32), (9, 400), (400, 9), (1, 1)):
        for _ in range(300):
            left, upper, right, lower = random_box(width, height, generator.random(23).tolist())
            assert 0 <= left < right <= width
            assert 0 <= upper < lower <= height
            if (width, height) == (500, 375):
                assert 0.74 <= (right - left) / (lower - upper) <= 1.35
                shares.append((right - left) * (lower - upper) / (width * height))
    assert min(shares) < 0.12
    assert max(shares) > 0.9
    # No try fits a strip: its widest allowed part, in the middle.
    assert random_box(9, 400, [0.99] * 23) == (0, 194, 9, 206)


def test_batches_depend_on_the_seed_and_on_no_thread(folder: Path) -> None:
    train_split = read_dataset(folder, 24).train
    one = epoch(train_split, 1)
    assert [tuple(part.shape) for part in one] == [(10, 3, 24, 24), (10,)] * 4
    for threads in (2, 7):
        assert all(torch.equal(a, b) for a, b in zip(one, epoch(train_split, threads), strict=True))
    assert not torch.equal(one[0], epoch(train_split, 1, seed=4)[0])
    for pictures, labels in zip(one[::2], one[1::2], strict=True):
        assert torch.equal(classes(pictures), labels)


def test_pictures_are_mirrored_every_other_time(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 250, 5).astype(np.uint8)[None, :, None], 50, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    pictures = PictureFiles((str(tmp_path / "ramp.png"),), 16)
    (made,) = pictures.augmented([torch.zeros(200, dtype=torch.int64)], torch.Generator().manual_seed(0))
    rising = (made[:, 0, 0, -1] > made[:, 0, 0, 0]).float().mean()
    assert 0.4 < float(rising) < 0.6


def test_memory_holds_two_batches_of_pictures_and_not_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakValueDictionary[int, Image.Image] = weakref.WeakValueDictionary()
    decoded: list[str] = []
    most = 0
    opened = decode.open_picture

    def watch(path: Path) -> Image.Image:
        nonlocal most
        image = opened(path)
        alive[id(image)] = image
        decoded.append(path.name)
        most = max(most, len(alive))
        return image

    monkeypatch.setattr(picture_files, "open_picture", watch)
    data = read_dataset(folder, 24)
    assert isinstance(data.train.images, PictureFiles)
    split = Split(dataclasses.replace(data.train.images, threads=2), data.train.labels).first(40)
    assert not decoded
    for done, _ in enumerate(split.batches(4, torch.Generator()), 1):
        assert len(decoded) <= 4 * (done + 1)
    gc.collect()
    assert len(decoded) == 40
    assert most <= 4
    assert not alive


def test_evaluation_takes_fewer_large_pictures_at_once() -> None:
    small = torch.empty(600, 3, 32, 32, device="meta")
    assert list(in_parts(small)) == [slice(0, 250), slice(250, 500), slice(500, 750)]
    assert [part.stop for part in in_parts(PictureFiles(("a",) * 40, 224))] == [16, 32, 48]


def test_calibration_sees_all_classes_of_a_folder(folder: Path, cifar: Path) -> None:
    files = read_dataset(folder, 300).train.calibration()
    assert files.shape == (16, 3, 300, 300)
    assert set(classes(files).tolist()) == {0, 1, 2}
    memory = read_dataset(cifar).train
    assert torch.equal(memory.calibration(), memory.images[:512])


def test_a_run_on_files_resumes_to_the_same_bits_and_is_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(folder, tmp_path / "whole"))
    progress = loop._progress

    def kill(title: str, done: int, total: int, started: float) -> None:
        if (title, done) == ("dynamic 2/2", 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_progress", kill)
    with pytest.raises(KeyboardInterrupt):
        train(config(folder, tmp_path / "killed"))
    monkeypatch.setattr(loop, "_progress", progress)
    killed = train(config(folder, tmp_path / "killed"), resume=True)
    one, other = (torch.load(run.checkpoint, weights_only=True)["network"] for run in (whole, killed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    report = export_run(ExportConfig(whole.path, tmp_path / "net.onnx", tmp_path / "golden", golden_pictures=2))
    assert report["pictures"] == 15
    assert load(tmp_path / "net.onnx").input.shape == (1, 3, 24, 24)


def test_what_cannot_be_read_is_one_sentence(folder: Path, cifar: Path, tmp_path: Path) -> None:
    def refusal(data: Path) -> str:
        arguments = ["train", "resnet8", "--data", str(data), "--out", str(tmp_path / "run"), "--size", "24"]
        result = CliRunner().invoke(main, [*arguments, "--batch-size", "2", "--device", "cpu"])
        assert result.exit_code == 2, result.output
        return " ".join(result.stderr.split())

    assert f"the data must be a folder, but there is no folder at {tmp_path / 'no'}." in refusal(tmp_path / "no")
    assert f"a size is for a folder train with one folder of images per class; {cifar} has none." in refusal(cifar)
    with pytest.raises(InputError, match="size must be at least 1, but is 0"):
        dataclasses.replace(tiny_config(folder, tmp_path), size=0).check()
    for split in ("train", "val"):
        (tmp_path / "broken" / split / "cat").mkdir(parents=True)
    whole = (folder / "train" / "class0" / "001.png").read_bytes()
    for broken in (b"no picture", whole[: len(whole) // 2], whole[:40] + bytes(60) + whole[100:]):
        for name in ("train/cat/a.png", "val/cat/c.png"):
            (tmp_path / "broken" / name).write_bytes(whole)
        file = tmp_path / "broken" / "train" / "cat" / "b.png"
        file.write_bytes(broken)
        assert f"the picture '{file}' cannot be read: " in refusal(tmp_path / "broken")
        for left in (tmp_path / "run").glob("*"):
            left.unlink()
