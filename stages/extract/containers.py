"""The parts of PNG, JPEG and WebP files: without those that Pillow may refuse, with the checksums that it ignores.

Pillow refuses an image for long, short or damaged metadata, though it decides no pixel, and accepts a PNG whose pixels
have a wrong checksum.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_PIXELS = 0x12  # the flags of VP8X that concern pixels: alpha, animation
_NEVER = 1 << 16  # longer than any segment


def without_metadata(content: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without the parts that decide no RGB pixel, any other file as it is.

    EXIF data stays if it is whole, for its orientation.
    """
    if content.startswith(PNG):
        kept = [
            chunk for name, chunk, sound in _png_chunks(content) if name[:1].isupper() or (name == b"eXIf" and sound)
        ]
        return b"".join([PNG, *kept])
    if content.startswith(b"\xff\xd8"):
        return b"".join([content[:2], *_jpeg_segments(content)])
    if content[:4] + content[8:12] == b"RIFFWEBP":
        body = b"".join([b"WEBP", *_webp_chunks(content)])
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    return content


def check_png_pixels(content: bytes) -> None:
    """Raise OSError if the file is a PNG, and the checksum of a whole chunk of pixels is wrong.

    zlib's own checksum is not reached where all rows come out before it.
    """
    for name, chunk, sound in _png_chunks(content) if content.startswith(PNG) else ():
        if name == b"IDAT" and not sound and len(chunk) == 12 + int.from_bytes(chunk[:4], "big"):
            raise OSError("a checksum of the pixels (IDAT) is wrong")


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, bytes and whether the checksum is right of each chunk, up to the one that ends the picture."""
    name, start = b"", len(PNG)
    while start + 12 <= len(content) and name != b"IEND":
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        name, chunk = content[start + 4 : start + 8], content[start:end]
        yield name, chunk, end <= len(content) and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        start = end


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    start = 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] != b"\xda":
        end = start + 2 + max(int.from_bytes(content[start + 2 : start + 4], "big"), 2)
        marker, segment = content[start + 1], content[start:end]
        # JFIF's and Adobe's segments say how colours are stored; libjpeg passes over those that are shorter
        shortest = {0xE0: 16, 0xE1: 10 if segment[4:10] == b"Exif\0\0" else _NEVER, 0xEE: 14}.get(marker, _NEVER)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or len(segment) >= shortest:
            yield segment
        start = end
    yield content[start:]


def _webp_chunks(content: bytes) -> Iterator[bytes]:
    start = 12
    while start + 8 <= len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        end = start + 8 + size + size % 2
        name, chunk = content[start : start + 4], content[start:end]
        if name == b"VP8X":  # its flags promise metadata that may be left out now
            yield chunk[:8] + bytes([chunk[8] & _WEBP_PIXELS]) + chunk[9:] if size else chunk
        elif name in {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"} or (name == b"EXIF" and end <= len(content)):
            yield chunk
        start = end
