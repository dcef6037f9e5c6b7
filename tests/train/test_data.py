import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch, the optional extra 'train'")

import torch
from PIL import Image

from dqtsim.errors import InputError
from dqtsim.train.data import augment, read_dataset

from .conftest import write_cifar


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        read_dataset(folder)
    return str(raised.value)


def test_all_three_layouts_give_the_same_pictures(cifar: Path, tmp_path: Path) -> None:
    python = read_dataset(cifar)
    assert python.train.images.shape == (160, 3, 32, 32)
    assert python.train.images[:].dtype == torch.uint8
    assert python.train.labels.dtype == torch.int64
    assert python.class_names[:2] == ("airplane", "automobile")

    binary = tmp_path / "cifar-10-batches-bin"
    binary.mkdir()
    images, labels = python.train.images[:].numpy(), python.train.labels.numpy()
    for i in range(5):
        rows = slice(32 * i, 32 * i + 32)
        records = np.concatenate([labels[rows, None].astype(np.uint8), images[rows].reshape(32, -1)], 1)
        (binary / f"data_batch_{i + 1}.bin").write_bytes(records.tobytes())
    test = np.concatenate([python.test.labels.numpy()[:, None], python.test.images[:].numpy().reshape(32, -1)], 1)
    (binary / "test_batch.bin").write_bytes(test.astype(np.uint8).tobytes())
    (binary / "batches.meta.txt").write_text("\n".join(python.class_names) + "\n")
    read = read_dataset(tmp_path)
    assert torch.equal(read.train.images[:], python.train.images[:])
    assert torch.equal(read.test.labels, python.test.labels)
    assert read.class_names == python.class_names

    for split, part in (("train", python.train), ("val", python.test)):
        for i, label in enumerate(part.labels.tolist()):
            folder = tmp_path / "images" / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(part.images[:][i].permute(1, 2, 0).numpy()).save(folder / f"{i:04d}.png")
    for label in range(10):
        for split in ("train", "val"):
            (tmp_path / "images" / split / f"class{label}").mkdir(exist_ok=True)
    folders = read_dataset(tmp_path / "images")
    order = torch.argsort(python.train.labels, stable=True)
    assert torch.equal(folders.train.images[:], python.train.images[order])
    assert folders.class_names[3] == "class3"


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no") == f"the data must be a folder, but there is no folder at {tmp_path / 'no'}."
    assert refusal(tmp_path) == (
        "the data folder must hold data_batch_1 (CIFAR-10 python), data_batch_1.bin (CIFAR-10 binary) or a folder "
        f"train (one folder of images per class), but none of them is in {tmp_path}."
    )


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path / "cifar", 2)
    (folder / "data_batch_3").unlink()
    assert refusal(folder) == f"CIFAR-10 must have all its batches, but {folder / 'data_batch_3'} is missing."


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("exit 1",)

    folder = write_cifar(tmp_path / "cifar", 2)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Attack()}))
    assert re.fullmatch(
        rf"a CIFAR-10 pickle may hold only numpy arrays and plain values, but {folder / 'data_batch_1'} "
        r"has: (posix|nt)\.system\.",
        refusal(folder),
    )


def test_broken_batches_are_described(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path / "cifar", 2)
    batch = folder / "data_batch_1"
    batch.write_bytes(pickle.dumps([1]))
    assert refusal(folder) == f"a CIFAR-10 pickle must hold a dictionary, but {batch} holds a list."
    batch.write_bytes(pickle.dumps({b"data": np.zeros((2, 7), np.uint8), b"labels": [0, 1]}))
    assert refusal(folder) == f"a CIFAR-10 batch must be uint8 [N, 3072], but {batch} has uint8 [2, 7]."
    batch.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}))
    assert refusal(folder) == f"a CIFAR-10 batch must have the keys data and labels, but {batch} has not."
    batch.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}))
    assert refusal(folder) == f"a CIFAR-10 batch must have one label per picture, but {batch} has 1 for 2."
    batch.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}))
    assert refusal(folder) == f"a label must be from 0 to 9, but {batch} has 10."


def test_a_binary_batch_is_whole_records(tmp_path: Path) -> None:
    batch = tmp_path / "data_batch_1.bin"
    batch.write_bytes(bytes(3074))
    assert refusal(tmp_path) == (
        f"a CIFAR-10 binary batch must be a whole number of 3073-byte records, but {batch} has 3074 bytes."
    )


def test_image_folders_are_checked(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert refusal(tmp_path) == (
        f"an image folder must have one folder per class, but {tmp_path / 'train'} has no folder."
    )
    (tmp_path / "train" / "cat").mkdir()
    assert refusal(tmp_path) == f"an image folder must have a folder test or val, but {tmp_path} has neither."
    (tmp_path / "test").mkdir()
    assert refusal(tmp_path) == f"a split must have at least one picture, but {tmp_path / 'train'} has none."
    Image.new("RGB", (8, 4)).save(tmp_path / "train" / "cat" / "a.png")
    assert refusal(tmp_path) == (
        f"every class must have a folder in each split, but {tmp_path / 'test' / 'cat'} is missing."
    )
    Image.new("RGB", (8, 6)).save(tmp_path / "train" / "cat" / "b.png")
    assert refusal(tmp_path) == (
        f"all pictures must have one size, 8x4 as the first, but {tmp_path / 'train' / 'cat' / 'b.png'} is 8x6."
    )
    (tmp_path / "train" / "cat" / "b.png").write_text("no picture")
    assert refusal(tmp_path).startswith(f"the picture '{tmp_path / 'train' / 'cat' / 'b.png'}' cannot be read: ")


def test_augmentation_crops_mirrors_and_repeats() -> None:
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).repeat(200, 3, 1, 1)
    first = augment(images, torch.Generator().manual_seed(1), pad=1)
    assert torch.equal(first, augment(images, torch.Generator().manual_seed(1), pad=1))
    assert first.dtype == torch.uint8
    padded = torch.nn.functional.pad(images[0], (1, 1, 1, 1), value=128)
    crops = [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {bytes(c.flatten().tolist()) for crop in crops for c in (crop, crop.flip(2))}
    found = {bytes(picture.flatten().tolist()) for picture in first}
    assert found == allowed
