"""Decoding: modes as Pillow converts them, every broken file a recorded failure with its kind."""

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

FIELD = Path(__file__).parents[2] / "data" / "field"


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


class Decoded(NamedTuple):
    metadata: dict
    image: Image.Image | None


def decode(path, *, apply_exif=False):
    """As readers do, through a corpus's sources."""
    source = partial(Sources.of(path.parent).read, path.name)
    return Decoded(*decode_module.decode(source, apply_exif=apply_exif))


def kind(path):
    decoded = decode(path)
    assert decoded.image is None
    assert decoded.metadata["status"] == "failed"
    assert "\n" not in decoded.metadata["error"]
    return decoded.metadata["error"].partition(":")[0]


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, rows, *metadata):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"".join((b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), *metadata, pixels, png_chunk(b"IEND", b"")))


def decoded_bytes(content, *, apply_exif=False):
    return Decoded(*decode_module.decode(content, apply_exif=apply_exif))


def jpeg_with(segment):
    content = encoded("JPEG")
    tables = content.index(b"\xff\xdb")
    return content[:tables] + segment + content[tables:]


def encoded(encoder, **options):
    buffer = io.BytesIO()
    picture(200, 150).save(buffer, encoder, **options)
    return buffer.getvalue()


def webp_with(chunk):
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


def test_format_is_told_by_content_not_by_name(tmp_path):
    path = save(tmp_path / "x.png", format="JPEG", quality=83)
    facts = decode(path).metadata
    assert (facts["format"], facts["jpeg_quality"], facts["width"], facts["height"]) == ("JPEG", 83, 64, 48)
    assert decode(FIELD / "mpo" / "phone.jpg").metadata["format"] == "JPEG"  # with a second picture behind it


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


def test_metadata_that_unfolds_to_gigabytes_takes_little_memory(tmp_path):
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    (tmp_path / "x.png").write_bytes(png(1, 1, b"\0abc", png_chunk(b"zTXt", b"k\0\0" + bomb)))
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
