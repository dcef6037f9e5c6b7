"""Files become codes: layouts, batches, pictures, and every refusal in full."""

import io
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dqtsim.errors import InputError
from dqtsim.graph import Graph, Value
from dqtsim.inputs.decode import PICTURE_SUFFIXES
from dqtsim.inputs.picture import read_input
from tests.builders import dense, network, picture

PICTURES = picture(3, count=2)  # (2, 3, 6, 6)
Image = pytest.importorskip("PIL.Image")


def taking(*shape: int) -> Graph:
    """Return a graph that only says which input it takes."""
    return replace(network(dynamic=False), inputs=(Value("x", "uint8", (1, *shape)),))


def saved(folder: Path, array: npt.ArrayLike, name: str = "x.npy", dtype: Any = np.uint8) -> Path:
    np.save(folder / name, np.asarray(array, dtype), allow_pickle=True)
    return folder / name


def refusal(path: Path, graph: Graph) -> str:
    with pytest.raises(InputError) as caught:
        read_input(path, graph)
    return str(caught.value)


@pytest.mark.parametrize(
    ("array", "count"),
    [
        (PICTURES[0], 1),
        (PICTURES[0].transpose(1, 2, 0), 1),
        (PICTURES[:1], 1),
        (PICTURES, 2),
        (PICTURES.transpose(0, 2, 3, 1), 2),
        (np.asfortranarray(PICTURES), 2),
    ],
    ids=["CHW", "HWC", "batch of one", "NCHW", "NHWC", "Fortran order"],
)
def test_layouts(tmp_path: Path, array: npt.NDArray[np.uint8], count: int) -> None:
    codes = read_input(saved(tmp_path, array), network())
    assert codes.dtype == np.uint8
    assert codes.flags.c_contiguous
    assert codes.tolist() == PICTURES[:count].tolist()


def test_networks_without_pictures(tmp_path: Path) -> None:
    graph = dense([[1, 2, 3]])
    assert read_input(saved(tmp_path, [1, 2, 3]), graph).tolist() == [[1, 2, 3]]
    assert read_input(saved(tmp_path, [[1, 2, 3], [4, 5, 6]]), graph).tolist() == [[1, 2, 3], [4, 5, 6]]
    text = refusal(saved(tmp_path, [1, 2]), graph)
    assert text == f"model 'one' takes uint8 of shape (3,), or a batch of these; '{tmp_path / 'x.npy'}' holds (2,)."


def test_one_channel(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8)
    for shape in ((1, 3, 4), (3, 4, 1), (1, 1, 3, 4), (1, 3, 4, 1)):
        assert read_input(saved(tmp_path, grey.reshape(shape)), taking(1, 3, 4)).tolist() == [
            [grey.reshape(3, 4).tolist()]
        ]


def test_pictures_are_their_bytes(tmp_path: Path) -> None:
    pixels = PICTURES[0].transpose(1, 2, 0)
    expected = PICTURES[:1].tolist()
    for suffix in ("png", "bmp", "ppm", "tiff", "PNG"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(pixels).save(path)
        assert read_input(path, network()).tolist() == expected
    assert read_input(saved(tmp_path, pixels), network()).tolist() == expected
    assert read_input(str(tmp_path / "x.png"), network()).tolist() == expected


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(PICTURES[0, 0]).save(path)
    assert read_input(path, network()).tolist() == [[PICTURES[0, 0].tolist()] * 3]
    rgba = np.dstack([PICTURES[0].transpose(1, 2, 0), PICTURES[1, 0]])
    Image.fromarray(rgba).save(path)
    assert read_input(path, network()).tolist() == PICTURES[:1].tolist()


def test_a_picture_of_three_by_three_is_read_by_its_own_layout(tmp_path: Path) -> None:
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    assert read_input(path, taking(3, 3, 3)).tolist() == [pixels.transpose(2, 0, 1).tolist()]


def test_an_ambiguous_array_is_refused_unless_it_is_a_batch_of_planes(tmp_path: Path) -> None:
    path = saved(tmp_path, np.arange(27).reshape(3, 3, 3))
    assert refusal(path, taking(3, 3, 3)) == (
        f"'{path}' holds (3, 3, 3), which can be (C, H, W) or (H, W, C); give it as (1, C, H, W)."
    )
    batch = np.arange(27).reshape(1, 3, 3, 3)
    assert read_input(saved(tmp_path, batch), taking(3, 3, 3)).tolist() == batch.tolist()


@pytest.mark.parametrize(
    "shape",
    [(6, 6), (3, 6, 5), (6, 6, 4), (0, 3, 6, 6), (0, 6, 6, 3), (1, 1, 3, 6, 6), (108,), (), (3, 6, 6, 1)],
    ids=str,
)
def test_shapes_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path, np.zeros(shape))
    assert refusal(path, network()) == (
        f"model 'small' takes uint8 of shape (6, 6, 3) or (3, 6, 6), or a batch of these; '{path}' holds {shape}."
    )


def test_nothing_is_resized(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (7, 6)).save(path)
    assert refusal(path, network()) == (
        f"model 'small' takes uint8 of shape (6, 6, 3) or (3, 6, 6), or a batch of these; '{path}' holds (6, 7, 3)."
    )


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float32", "bool", "complex64", "U1", "M8[s]"])
def test_dtypes_refused(tmp_path: Path, dtype: str) -> None:
    path = saved(tmp_path, np.zeros((3, 6, 6), dtype), dtype=dtype)
    shown = {"U1": "<U1", "M8[s]": "datetime64[s]"}.get(dtype, dtype)
    assert refusal(path, network()) == f"the input is uint8, 0 to 255; '{path}' holds {shown}."


def test_arrays_that_are_none(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, PICTURES)
    data = whole.getvalue()
    archive = io.BytesIO()
    np.savez(archive, x=PICTURES)
    objects = saved(tmp_path, np.array([{}], object), "objects.npy", object).read_bytes()
    for content in (b"", b"text", data[:6], data[:60], data[:-1], archive.getvalue(), objects):
        path = tmp_path / "bad.npy"
        path.write_bytes(content)
        assert refusal(path, network()) == f"the input '{path}' is not a .npy file of numbers."


def test_damaged_pictures_are_refused_or_read_but_never_a_traceback(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(PICTURES[0].transpose(1, 2, 0)).save(whole, "PNG")
    data = bytearray(whole.getvalue())
    path = tmp_path / "bad.png"
    sentences = (
        f"the picture '{path}' cannot be read: ",
        f"pictures have 8 bits a channel; '{path}' has more (Pillow's mode I;16).",
        f"model 'small' takes uint8 of shape (6, 6, 3) or (3, 6, 6), or a batch of these; '{path}' holds ",
    )
    broken = [bytes(data[:cut]) for cut in range(0, len(data), 7)]
    for position in range(len(data)):
        changed = data.copy()
        changed[position] ^= 0xFF
        broken.append(bytes(changed))
    for content in broken:
        path.write_bytes(content)
        try:
            assert read_input(path, network()).shape == (1, 3, 6, 6)
        except InputError as error:
            assert str(error).startswith(sentences)
            assert "\n" not in str(error)


def test_a_picture_that_claims_to_be_enormous(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("RGB", (6, 6)).save(path)
    data = bytearray(path.read_bytes())
    data[16:20] = (1 << 30).to_bytes(4, "big")  # the width, then the checksum of the header
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    assert refusal(path, network()) == (
        f"the picture '{path}' cannot be read: image size (6442450944 pixels) exceeds limit of 178956970 pixels, could "
        "be decompression bomb DOS attack."
    )


def test_files_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.npy", tmp_path / "missing.png", tmp_path / "missing.txt"):
        assert refusal(path, network()) == f"the input is a .npy or a picture file; '{path}' is no file."
    other = tmp_path / "x.txt"
    other.write_text("pixels", encoding="utf-8")
    assert refusal(other, network()) == (
        f"the input is a .npy or a picture file ({', '.join(PICTURE_SUFFIXES)}); found '{other}'."
    )


def test_pillow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest, **more)

    path = tmp_path / "x.png"
    path.write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    assert refusal(path, network()) == 'picture files need Pillow; install it with pip install "dqtsim[picture]".'


GRAY = taking(1, 4, 5)
SHADES = (np.arange(20, dtype=np.uint8) * 12).reshape(4, 5)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGB", "RGBA"])
def test_a_network_of_one_channel_takes_gray_pictures(tmp_path: Path, mode: str) -> None:
    shades = (SHADES > 99).astype(np.uint8) * 255 if mode == "1" else SHADES
    Image.fromarray(shades).convert(mode).save(tmp_path / "x.png")
    codes = read_input(tmp_path / "x.png", GRAY)
    assert codes.flags.c_contiguous
    assert codes.tolist() == shades[None, None].tolist()


def test_a_network_of_one_channel_refuses_colours(tmp_path: Path) -> None:
    colours = np.stack([SHADES] * 3, -1)
    colours[3, 4, 2] += 1
    Image.fromarray(colours).save(tmp_path / "x.png")
    path = tmp_path / "x.png"
    assert refusal(path, GRAY) == f"a network of one channel takes gray pictures; '{path}' has colours."
