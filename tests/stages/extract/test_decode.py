"""Decoding: modes as Pillow converts them, every broken file a recorded failure with its kind."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from extract_pictures import picture, save
from PIL import Image, ImageFile

from running import make_socket
from stages.extract import read_image as decode_module
from storage.sources import Sources


def cut(path, share: float = 0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


class Decoded(NamedTuple):
    metadata: dict
    image: Image.Image | None


def decode(path: Path, *, apply_exif: bool = False) -> Decoded:
    """As readers do, through a corpus's sources."""
    source = partial(Sources.of(path.parent).read, path.name)
    return Decoded(*decode_module.decode(source, apply_exif=apply_exif))


def kind(path) -> str:
    decoded = decode(path)
    assert decoded.image is None
    assert decoded.metadata["status"] == "failed"
    assert "\n" not in decoded.metadata["error"]
    return decoded.metadata["error"].partition(":")[0]


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, *metadata: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"".join((b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), *metadata, pixels, png_chunk(b"IEND", b"")))


def decoded_bytes(content: bytes, *, apply_exif: bool = False) -> Decoded:
    return Decoded(*decode_module.decode(content, apply_exif=apply_exif))


def jpeg_with(segment: bytes) -> bytes:
    content = encoded("JPEG")
    tables = content.index(b"\xff\xdb")
    return content[:tables] + segment + content[tables:]


def encoded(encoder: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture(200, 150).save(buffer, encoder, **options)
    return buffer.getvalue()


def webp_with(chunk: bytes) -> bytes:
    header = b"VP8X" + struct.pack("<II", 10, 8) + (199).to_bytes(3, "little") + (149).to_bytes(3, "little")
    body = b"WEBP" + header + encoded("WEBP")[12:] + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "bmp", "webp", "jp2", "avif"])
def test_cut_file_fails(tmp_path, suffix):
    found = kind(cut(save(tmp_path / f"x.{suffix}", size=(200, 150))))
    assert found in ({"damaged", "no image", "truncated"} if suffix in {"webp", "jp2", "avif"} else {"truncated"})


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

    monkeypatch.setattr(decode_module, "_from_bytes", broken)
    decoded = decode(save(tmp_path / "x.png"))
    assert decoded.metadata["error"] == f"damaged: {error.__name__}: first line"
    assert len(decoded.metadata["sha256"]) == 64


def test_format_is_told_by_content_not_by_name(tmp_path):
    path = save(tmp_path / "x.png", format="JPEG", quality=83)
    facts = decode(path).metadata
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
    picture().quantize(8).save(tmp_path / "transparent.png", transparency=bytes(range(8)))  # Pillow warns of it
    assert decode(tmp_path / "transparent.png").metadata["status"] == "ok"
    for name, image in images.items():
        image.save(tmp_path / name)
        decoded = decode(tmp_path / name)
        assert decoded.metadata["status"] == "ok", name
        assert decoded.metadata["mode"] == {"deep.png": "I;16"}.get(name, image.mode), name
        assert np.array_equal(decoded.image, image.convert("RGB")), name
    assert np.array_equal(np.asarray(decode(tmp_path / "alpha.png").image), np.asarray(picture()))  # colour as stored


def test_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(tmp_path / "x.gif").image)[0, 0].tolist() == [255, 0, 0]


FIELD = Path(__file__).parents[2] / "data" / "field"


@pytest.mark.parametrize("path", sorted((FIELD / "png-metadata").iterdir()), ids=lambda path: path.name)
def test_long_or_damaged_metadata_decides_nothing_about_a_png(path):
    decoded = decode(path)
    assert decoded.metadata["status"] == "ok", decoded.metadata["error"]
    assert decoded.image.size == (decoded.metadata["width"], decoded.metadata["height"])


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with(b"\xff\xe2\x00\x0eICC_PROFILE\0"),
        jpeg_with(b"\xff\xe0\x00\x07JFIF\0"),
        jpeg_with(b"\xff\xee\x00\x07Adobe"),
        webp_with(b"EXIF\xff\xff\0\0abc"),
        webp_with(b"EXIF\x20\0\0\0abc"),
    ],
)
def test_damaged_metadata_decides_nothing_about_a_jpeg_or_webp(content):
    whole = decoded_bytes(encoded("JPEG" if content[:1] == b"\xff" else "WEBP"))
    decoded = decoded_bytes(content)
    assert decoded.metadata["status"] == "ok", decoded.metadata["error"]
    assert np.array_equal(decoded.image, whole.image)


def test_exif_data_that_cannot_be_read_turns_nothing():
    content = encoded("JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    decoded = decoded_bytes(content, apply_exif=True)
    assert np.array_equal(decoded.image, decoded_bytes(encoded("JPEG")).image)


def test_orientation_is_read_beside_metadata_that_is_too_long():
    exif = Image.Exif()
    exif[0x0112] = 6
    chunks = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20))), png_chunk(b"eXIf", exif.tobytes()[6:])
    content = png(2, 1, b"\0" + bytes(6), *chunks)
    assert [decoded_bytes(content, apply_exif=turn).image.size for turn in (False, True)] == [(2, 1), (1, 2)]


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_wrong_checksum_of_a_critical_chunk_is_damage(name):
    content = bytearray(png(2, 1, b"\0" + bytes(6)))
    start = content.index(name)
    end = start + 4 + int.from_bytes(content[start - 4 : start], "big")
    content[end] ^= 1
    assert decoded_bytes(bytes(content)).metadata["status"] == "failed"


def test_png_whose_end_was_never_written_is_damaged():
    rng = np.random.default_rng(0)
    grey = np.add.outer(np.arange(150), np.arange(200)) // 3 + rng.integers(0, 60, (150, 200))
    buffer = io.BytesIO()
    Image.fromarray((grey * 200).astype(np.uint16)).save(buffer, "PNG")
    whole = buffer.getvalue()
    for share in (0.3, 0.5, 0.7, 0.9):
        kept = int(len(whole) * share)
        assert decoded_bytes(whole[:kept] + bytes(len(whole) - kept)).metadata["status"] == "failed", share


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_metadata_that_unfolds_to_gigabytes_takes_little_memory(tmp_path, name):
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    start = b"k\0\1\0\0\0" if name == b"iTXt" else b"k\0\0"
    (tmp_path / "x.png").write_bytes(png(1, 1, b"\0abc", png_chunk(name, start + bomb)))
    code = (
        "import pathlib, resource, sys; from stages.extract.read_image import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(decode(pathlib.Path(sys.argv[1]).read_bytes)[0]['status'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "x.png"], capture_output=True, text=True, check=True, timeout=60
    )
    status, kilobytes = ran.stdout.split()
    assert status == "ok"
    assert int(kilobytes) < 100_000


def test_pictures_of_phones_are_jpeg():
    facts = decode(FIELD / "mpo" / "phone.jpg").metadata
    assert (facts["status"], facts["format"]) == ("ok", "JPEG")
    assert facts["jpeg_quality"] is not None


def test_a_bmp_without_its_file_header_is_a_bmp():
    assert decoded_bytes(encoded("DIB")).metadata["format"] == "BMP"


def tiff_of_rows(offsets: list[int]) -> bytes:
    """A raw RGB TIFF, 20 x 10, one strip a row, all its pixels 200, the strips listed at ``offsets``."""
    pixels = bytes([200]) * 600
    count, directory = len(offsets), 8 + len(pixels)
    tags = [
        (256, 1, 20),
        (257, 1, 10),
        (258, 3, 0),
        (262, 1, 2),
        (273, count, 0),
        (277, 1, 3),
        (278, 1, 1),
        (279, count, 0),
    ]
    long = {258: [8] * 3, 273: offsets, 279: [60] * count}
    place, values, entries = directory + 2 + 12 * len(tags) + 4, b"", b""
    for tag, number, value in tags:
        if tag in long:
            entries += struct.pack("<HHII", tag, 4, number, place + len(values))
            values += struct.pack(f"<{number}I", *long[tag])
        else:
            entries += struct.pack("<HHII", tag, 4, number, value)
    header = b"II*\0" + struct.pack("<I", directory)
    return header + pixels + struct.pack("<H", len(tags)) + entries + bytes(4) + values


def test_a_tiff_without_some_of_its_strips_is_truncated():
    whole = [8 + 60 * row for row in range(10)]
    assert (np.asarray(decoded_bytes(tiff_of_rows(whole)).image) == 200).all()
    for offsets in (whole[:6], whole[:6] + [0] * 4, whole[:6] + [1 << 20] * 4):
        assert str(decoded_bytes(tiff_of_rows(offsets)).metadata["error"]).startswith("truncated"), offsets


def test_a_tiff_is_turned_as_pillow_turns_it_and_its_size_is_that_of_its_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    for compression in (None, "tiff_lzw"):
        content = encoded("TIFF", exif=exif, compression=compression)
        for turn in (False, True):
            decoded = decoded_bytes(content, apply_exif=turn)
            assert decoded.image.size == (decoded.metadata["width"], decoded.metadata["height"]) == (150, 200)
            assert np.array_equal(decoded.image, picture(200, 150).transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("encoder", ["PNG", "WEBP", "AVIF", "JPEG"])
def test_no_other_format_is_turned_unasked(encoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(encoder, exif=exif)
    as_stored, turned = (decoded_bytes(content, apply_exif=turn).image for turn in (False, True))
    assert (as_stored.size, turned.size) == ((200, 150), (150, 200))
    assert np.array_equal(turned, as_stored.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("encoder", ["PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_a_picture_of_one_pixel_is_read(encoder):
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), "white").save(buffer, encoder)
    assert decoded_bytes(buffer.getvalue()).image.size == (1, 1)
