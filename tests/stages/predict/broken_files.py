"""Files that a folder of images may hold and that are no readable image, each broken in another way."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

from running import make_socket


def encoded(form, size=96, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height, data=b""):
    """A PNG whose header states any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def broken_contents():
    png, jpeg, webp, gif, tiff, bmp = (encoded(form) for form in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "empty.jpg": b"",
        "one-byte.png": b"\x89",
        "text.jpg": b"this is no image\n" * 10,
        "html.png": b"<html><script>alert(1)</script></html>",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.jpg": b"PK\x03\x04" + bytes(64),
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(quit) run\n",
        "pickle.jpg": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
        "zeros.bmp": bytes(4096),
        "png-half.png": png[: len(png) // 2],
        "png-header.png": png[:33],
        "png-flipped.png": bytes(flipped),
        "png-bomb.png": png_of(65_000, 65_000),
        "png-no-size.png": png_of(0, 0),
        "png-short-data.png": png_of(64, 64, b"\0" * 10),
        "jpeg-half.jpg": jpeg[: len(jpeg) // 2],
        "jpeg-marker.jpg": jpeg[:2],
        "jpeg-head.jpg": jpeg[:200],
        "jpeg-noise.jpg": jpeg[:2] + np.random.default_rng(1).bytes(500),
        "webp-half.webp": webp[: len(webp) // 2],
        "gif-header.gif": gif[:13],
        "tiff-header.tif": tiff[:8],
        "bmp-half.bmp": bmp[: len(bmp) // 2],
    }


def break_folder(folder, elsewhere):
    """Write 30 broken files and return their names."""
    contents = broken_contents()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    names = set(contents)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "leads-out.png").symlink_to(elsewhere)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    make_socket(folder / "socket.jpg")
    return names | {"dangling.png", "circle.png", "leads-out.png", "folder.png", "pipe.jpg", "huge.png", "socket.jpg"}
