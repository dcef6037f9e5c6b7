"""Pictures of data folders: the same files as alone, the same codes, and nothing left out without a word."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dqtsim.errors import InputError
from dqtsim.graph import Graph, Value
from dqtsim.inputs.dataset import read_labelled, read_split
from dqtsim.inputs.decode import PICTURE_SUFFIXES
from dqtsim.inputs.picture import read_input
from tests.builders import network

Image = pytest.importorskip("PIL.Image")
KNOWN = ", ".join(PICTURE_SUFFIXES)
GRAPH: Graph = replace(network(dynamic=False), inputs=(Value("x", "uint8", (1, 3, 8, 6)),))
PIXELS = np.random.default_rng(4).integers(0, 256, (2, 8, 6, 3), np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder of the classes cat and dog, one picture each."""
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(PIXELS[label]).save(tmp_path / split / name / "a.png")
    return tmp_path


def refusal(data: Path, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        read_split(data, split)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [*PICTURE_SUFFIXES, ".PNG", ".Tif"])
def test_every_suffix_gives_the_same_codes_alone_and_in_a_folder(data: Path, suffix: str) -> None:
    path = data / "train" / "cat" / f"b{suffix}"
    Image.fromarray(PIXELS[1]).save(path)
    alone = read_input(path, GRAPH)
    split = read_split(data, "train")
    assert alone.shape == (1, 3, 8, 6)
    assert split.labels.tolist() == [0, 0, 1]
    assert split.images[1].tolist() == alone[0].tolist()


@pytest.mark.parametrize("suffix", [".gif", ".tif"])
def test_the_first_of_several_pictures_in_a_file(data: Path, suffix: str) -> None:
    path = data / "train" / "cat" / f"b{suffix}"
    first, second = (Image.fromarray(np.full((8, 6, 3), level, np.uint8)) for level in (10, 200))
    first.save(path, save_all=True, append_images=[second])
    assert set(read_input(path, GRAPH).reshape(-1).tolist()) == {10}
    assert set(read_split(data, "train").images[1].reshape(-1).tolist()) == {10}


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_a_channel(data: Path, mode: str) -> None:
    path = data / "train" / "cat" / "b.tif"
    Image.new(mode, (6, 8)).save(path)
    sentence = f"pictures have 8 bits a channel; '{path}' has more (Pillow's mode {mode})."
    with pytest.raises(InputError) as caught:
        read_input(path, GRAPH)
    assert str(caught.value) == sentence
    assert refusal(data) == sentence


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_picture_is_told_in_the_same_words(data: Path, content: bytes) -> None:
    path = data / "train" / "cat" / "b.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_input(path, GRAPH)
    assert str(caught.value) == f"the picture '{path}' cannot be read: it is of no format that Pillow knows."
    assert refusal(data) == str(caught.value)


@pytest.mark.parametrize(
    "name", [".DS_Store", ".hidden/x.heic", "Thumbs.db", "desktop.ini", "labels.txt", "README", "README.md", "LICENSE"]
)
@pytest.mark.parametrize("folder", ["train", "train/cat", "test/dog", "."])
def test_what_lies_beside_pictures_is_not_looked_at(data: Path, folder: str, name: str) -> None:
    path = data / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("nothing")
    for split in ("train", "test"):
        found = read_split(data, split)
        assert (len(found), found.class_names) == (2, ("cat", "dog"))


@pytest.mark.parametrize("name", ["b.heic", "b.avif", "b.npy", "noname", "b.png.part", "deeper"])
def test_what_is_no_known_picture_does_not_vanish(data: Path, name: str) -> None:
    path = data / "train" / "dog" / name
    path.mkdir() if name == "deeper" else path.write_bytes(b"")
    assert refusal(data) == f"a class folder must hold pictures ({KNOWN}), but has {path}."
    assert len(read_split(data, "test")) == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_picture_of_no_class_does_not_vanish(data: Path, split: str) -> None:
    Image.fromarray(PIXELS[0]).save(data / split / "lost.png")
    assert refusal(data, split) == (
        f"a split must hold one folder of pictures per class, but {data / split} has lost.png."
    )


def test_a_class_that_training_lacks_does_not_vanish(data: Path) -> None:
    path = data / "test" / "emu"
    path.mkdir()
    assert refusal(data, "test") == f"every class must have a folder in train, but {path} has none there."


def test_the_classes_of_a_folder_are_those_of_the_model(data: Path) -> None:
    graph = replace(GRAPH, class_names=("cat", "dog"))
    assert len(read_labelled(graph, data)) == 2
    assert len(read_labelled(graph, data, "train", 1)) == 1
    with pytest.raises(InputError) as caught:
        read_labelled(replace(graph, class_names=("cat", "cow")), data)
    assert str(caught.value) == f"the classes of '{data}' are ('cat', 'dog'); the model's are ('cat', 'cow')."


def test_gray_pictures_for_a_network_of_one_channel(data: Path) -> None:
    graph = replace(GRAPH, inputs=(Value("x", "uint8", (1, 1, 8, 6)),), class_names=("cat", "dog"))
    for path in data.rglob("*.png"):
        Image.fromarray(PIXELS[0, :, :, 0]).save(path)
    images = read_labelled(graph, data).images
    assert images.shape == (2, 1, 8, 6)
    assert images[1, 0].tolist() == PIXELS[0, :, :, 0].tolist()
    assert read_split(data, "test").images.shape == (2, 3, 8, 6)
    path = data / "test" / "dog" / "a.png"
    Image.fromarray(PIXELS[0]).save(path)
    with pytest.raises(InputError) as caught:
        read_labelled(graph, data)
    assert str(caught.value) == f"a network of one channel takes gray pictures; '{path}' has colours."
