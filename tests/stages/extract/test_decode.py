"""Decoding: modes as Pillow converts them, every broken file a recorded failure with its kind."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from extract_pictures import picture, save
from PIL import Image, ImageFile, PngImagePlugin

from running import PROJECT, make_socket
from stages.extract import decode as decode_module
from stages.extract.decode import Decoded
from storage.sources import Sources


def cut(path, share: float = 0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def decode(path: Path, *, apply_exif: bool = False) -> Decoded:
    """As readers do, through a corpus's sources."""
    return decode_module.decode(partial(Sources.of(path.parent).read, path.name), apply_exif=apply_exif)


def kind(path) -> str:
    decoded = decode(path)
    assert decoded.image is None
    assert decoded.facts["status"] == "failed"
    assert "\n" not in decoded.facts["error"]
    return decoded.facts["error"].partition(":")[0]


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "bmp"])
def test_cut_file_is_truncated(tmp_path, suffix):
    assert kind(cut(save(tmp_path / f"x.{suffix}", size=(200, 150)))) == "truncated"


@pytest.mark.parametrize("suffix", ["webp", "jp2", "avif"])
def test_cut_file_of_a_format_without_that_word_still_fails(tmp_path, suffix):
    assert kind(cut(save(tmp_path / f"x.{suffix}", size=(200, 150)))) in {"damaged", "no image", "truncated"}


def test_cut_file_fails_even_where_another_library_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert kind(cut(save(tmp_path / "x.jpg", size=(200, 150)))) == "truncated"


def test_kinds_of_failure(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, b"\0"))
    (tmp_path / "big.png").write_bytes(png(15_000, 12_000, b"\0"))  # above the limit, below Pillow's own error
    (tmp_path / "ps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    kinds = {path.name: kind(path) for path in tmp_path.iterdir()}
    assert kinds == {
        "empty.jpg": "truncated",
        "text.jpg": "no image",
        "bomb.png": "too large",
        "big.png": "too large",
        "ps.jpg": "no image",
    }


def test_what_is_no_regular_file_is_unreadable_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "circular.jpg").symlink_to("circular.jpg")
    make_socket(tmp_path / "socket.jpg")
    assert {kind(path) for path in tmp_path.iterdir()} == {"unreadable"}


@pytest.mark.parametrize("error", [RecursionError, MemoryError, SyntaxError, struct.error, ZeroDivisionError])
def test_whatever_a_decoder_raises_is_recorded(tmp_path, monkeypatch, error):
    def broken(*_args, **_options):
        raise error("first line\nsecond line")

    monkeypatch.setattr(decode_module, "_pixels", broken)
    decoded = decode(save(tmp_path / "x.png"))
    assert decoded.facts["error"] == f"damaged: {error.__name__}: first line"
    assert len(decoded.facts["sha256"]) == 64


def test_format_is_told_by_content_not_by_name(tmp_path):
    path = save(tmp_path / "x.png", format="JPEG", quality=83)
    facts = decode(path).facts
    assert (facts["format"], facts["jpeg_quality"], facts["width"], facts["height"]) == ("JPEG", 83, 64, 48)


def test_modes_become_rgb_as_pillow_converts_them(tmp_path):
    rgba = picture().convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    images = {
        "cmyk.tif": picture().convert("CMYK"),
        "palette.png": picture().quantize(16),
        "grey.png": picture().convert("L"),
        "bit.png": picture().convert("1"),
        "alpha.png": rgba,
        "deep.png": Image.fromarray(np.arange(3000, dtype=np.uint16).reshape(50, 60)),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        decoded = decode(tmp_path / name)
        assert decoded.facts["status"] == "ok", name
        assert decoded.facts["mode"] == {"deep.png": "I;16"}.get(name, image.mode), name
        assert np.array_equal(decoded.image, image.convert("RGB")), name
    assert np.array_equal(np.asarray(decode(tmp_path / "alpha.png").image), np.asarray(picture()))  # colour as stored


def test_palette_with_transparency_gives_no_warning(tmp_path):
    picture().quantize(8).save(tmp_path / "x.png", transparency=bytes(range(8)))
    assert decode(tmp_path / "x.png").facts["status"] == "ok"


def test_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(tmp_path / "x.gif").image)[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.jpg", exif=exif)
    assert decode(path).image.size == (64, 48)
    turned = decode(path, apply_exif=True).image
    assert turned.size == (48, 64)
    assert np.array_equal(turned, decode(path).image.transpose(Image.Transpose.ROTATE_270))


FIELD = PROJECT / "tests" / "data" / "field"


@pytest.mark.parametrize(
    "path", sorted([*FIELD.glob("png-crc/fake/*.png"), *FIELD.glob("png-metadata/*.png")]), ids=lambda path: path.stem
)
def test_metadata_of_a_png_decide_nothing(path):
    """Long texts and profiles, chunks with a wrong checksum, bombs behind the pixels."""
    decoded = decode_module.decode(path.read_bytes)
    assert decoded.facts["error"] is None
    assert decoded.image.size == (decoded.facts["width"], decoded.facts["height"])
    plain = io.BytesIO()
    decoded.image.save(plain, "PNG")
    np.testing.assert_array_equal(np.asarray(decode_module.decode(plain.getvalue).image), np.asarray(decoded.image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_without_its_metadata_has_the_same_pixels(mode):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8))
    picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 5000, zip=True)
    content = io.BytesIO()
    picture.save(content, "PNG", pnginfo=info, icc_profile=b"profile", dpi=(72, 72))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a palette with transparency
        expected = Image.open(io.BytesIO(content.getvalue())).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode_module.decode(content.getvalue).image), np.asarray(expected))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_png_whose_pixels_are_damaged_is_no_half_picture(share):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(content, "PNG")
    whole = content.getvalue()
    kept = int(len(whole) * share)
    decoded = decode_module.decode(lambda: whole[:kept] + bytes(len(whole) - kept))
    assert decoded.image is None
    assert decoded.facts["error"].startswith("damaged: ")


def test_phones_write_jpeg_under_another_name():
    first, second = (Image.new("RGB", (30, 20), colour) for colour in ("red", "blue"))
    content = io.BytesIO()
    first.save(content, "MPO", save_all=True, append_images=[second], quality=90)
    assert Image.open(io.BytesIO(content.getvalue())).format == "MPO"
    decoded = decode_module.decode(content.getvalue)
    assert (decoded.facts["format"], decoded.facts["jpeg_quality"], decoded.image.getpixel((3, 3))[0]) == (
        "JPEG",
        90,
        254,
    )


@pytest.mark.parametrize("apply_exif", [False, True])
def test_a_tiff_is_turned_once_whatever_the_setting(apply_exif):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(stored).save(content, "TIFF", exif=exif)
    turned = np.rot90(stored, -1)
    np.testing.assert_array_equal(
        np.asarray(decode_module.decode(content.getvalue, apply_exif=apply_exif).image), turned
    )
