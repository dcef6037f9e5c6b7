"""Pictures to calibrate with: .npy files, CIFAR-10, and folders of images of any size."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from dqtsim.errors import InputError
from dqtsim.inputs.calibration import central_box, read_pictures

Image = pytest.importorskip("PIL.Image")
RANDOM = np.random.default_rng(8)


@pytest.mark.parametrize(
    ("available", "count", "first", "second"),
    [
        (3, 5, [0, 1, 2], []),
        (5, 5, [0, 1, 2, 3, 4], []),
        (10, 5, [0, 2, 4, 6, 8], [1, 3, 5, 7, 9]),
        (100, 2, [0, 50], [25, 75]),
        (7, 4, [0, 1, 3, 5], [2, 4, 6]),
    ],
)
def test_pictures_are_taken_evenly_and_others_measure(
    tmp_path: Path, available: int, count: int, first: list[int], second: list[int]
) -> None:
    array = np.arange(available, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 5), np.uint8)
    for held in (array, array.transpose(0, 2, 3, 1)):
        np.save(tmp_path / "x.npy", held)
        used, others = read_pictures(tmp_path / "x.npy", (3, 4, 5), "net", count)
        assert used[:, 2, 3, 4].tolist() == first
        assert others[:, 0, 0, 0].tolist() == second
        assert others.shape[1:] == (3, 4, 5)


def test_images_below_a_folder_are_cut_and_scaled(tmp_path: Path) -> None:
    for name, size in (("a/1.png", (16, 32)), ("b/2.jpg", (64, 16)), ("b/3.png", (6, 5))):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (*size[::-1], 3), np.uint8)).save(tmp_path / "train" / name)
    (tmp_path / "test").mkdir()
    seen: list[int] = []
    used, others = read_pictures(tmp_path, (3, 5, 6), "net", 3, lambda: seen.append(1))
    assert (used.shape, others.shape, len(seen)) == ((3, 3, 5, 6), (0, 3, 5, 6), 3)
    exact = np.asarray(Image.open(tmp_path / "train" / "b" / "3.png")).transpose(2, 0, 1)
    assert used[2].tolist() == exact.tolist()
    box = central_box(16, 32, 5, 6)
    assert box == (1, 10, 15, 22)
    scaled = Image.open(tmp_path / "train" / "a" / "1.png").resize((6, 5), Image.Resampling.BILINEAR, box)
    assert used[0].tolist() == np.asarray(scaled).transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(
    ("width", "height", "box"), [(256, 256, (16, 16, 240, 240)), (512, 256, (144, 16, 368, 240)), (1, 1, (0, 0, 1, 1))]
)
def test_of_a_square_picture_seven_eighths_are_used(width: int, height: int, box: tuple[int, ...]) -> None:
    assert central_box(width, height, 224, 224) == box


def test_cifar_is_read_from_its_training_pictures(tmp_path: Path) -> None:
    for number in range(1, 6):
        content = {b"data": np.full((2, 3072), number, np.uint8), b"labels": [0, 1]}
        (tmp_path / f"data_batch_{number}").write_bytes(pickle.dumps(content, protocol=2))
    used, others = read_pictures(tmp_path, (3, 32, 32), "net", 4)
    assert used[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert len(others) == 4
    with pytest.raises(InputError) as raised:
        read_pictures(tmp_path, (3, 16, 16), "net", 4)
    assert str(raised.value) == (f"model 'net' takes pictures of (3, 16, 16); those of '{tmp_path}' are (3, 32, 32).")


def test_gray_images_for_one_channel(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "a.png")
    assert read_pictures(tmp_path, (1, 2, 2), "net", 1)[0].tolist() == [[[[7, 7], [7, 7]]]]
    path = tmp_path / "b.png"
    Image.fromarray(RANDOM.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
    with pytest.raises(InputError) as raised:
        read_pictures(tmp_path, (1, 2, 2), "net", 2)
    assert str(raised.value) == f"a network of one channel takes gray pictures; '{path}' has colours."


def test_folders_without_pictures_and_networks_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_pictures(tmp_path, (3, 2, 2), "net", 1)
    assert str(raised.value) == (
        f"the folder of pictures must hold some (.png, .jpg, .jpeg, .bmp, .gif, .webp, .ppm, .tif, .tiff); "
        f"{tmp_path} has none."
    )
    with pytest.raises(InputError) as raised:
        read_pictures(tmp_path, (640,), "net", 1)
    assert str(raised.value) == "images have 1 or 3 channels, and the network takes (640,); give a .npy file."
