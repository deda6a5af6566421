"""Decode JPEGs strictly: what libjpeg warns of is an error, unless it is shown to change no pixel."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import simplejpeg
from PIL import Image

from cache.arrays import U8

JPEG_START = b"\xff\xd8"

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_MARKER = re.compile(rb"\xff+[^\0\xff\xd0-\xd7]")  # those of restarts are within a scan
_SCAN, _SCANS, _PROGRESSIVE = 0xDA, re.compile(rb"\xff\xda"), re.compile(rb"\xff[\xc2\xca]")
_ALONE = (0x01, 0xD8, 0xD9)  # markers without a segment

_UNUSED = (
    ("unknown JFIF revision", rb"(?s)\xff\xe0..JFIF\0([^\x01])", b"\1"),
    ("Unknown Adobe color transform", rb"(?s)\xff\xee..Adobe.{6}([^\0\x01])", b"\1"),  # it then takes YCbCr
    ("Unknown Adobe color transform", rb"(?s)\xff\xee..Adobe.{6}([^\0\x02])", b"\2"),  # or YCCK, with four components
    ("bad ICC marker", rb"(?s)\xff\xe2..(I)CC_PROFILE\0", b"-"),
    ("Invalid SOS parameters", rb"(?s)\xff\xda..(?:\x01..|\x02.{4}|\x03.{6}|\x04.{8})((?!\0\x3f\0)...)", b"\0\x3f\0"),
)
"""Numbers that libjpeg warns of and does not use: its warning, where they are, and what it would not warn of."""

_MOST_WARNINGS = 32  # warnings of one file that are looked into: each takes a few decodings


def decode_jpeg(data: bytes) -> U8:
    """Decode a JPEG as `(H, W, 3)` RGB.

    libjpeg also warns of what changes no pixel: of bytes that belong to nothing, and of numbers that it does not use.
    Then the file is decoded again without those bytes, or with the numbers that it takes instead, until nothing is
    warned of: the pixels have to be those of the file as it is. Raises `ValueError`: it is cut short, damaged, or of a
    colour space that is not converted; the message is libjpeg's.
    """
    try:
        return _strictly(data)
    except ValueError as error:
        first = error
    mended, ends, warning = data, list[int](), str(first)
    for _ in range(_MOST_WARNINGS):
        found = _without(mended, warning)
        if found is None:
            raise first
        mended, end = found
        ends += [end] if end else []
        try:
            pixels = _strictly(mended)
        except ValueError as error:
            warning = str(error)
            continue
        with suppress(Exception):  # whatever Pillow raises of damaged bytes
            if np.array_equal(_loosely(data), _loosely(mended)) and all(_is_whole(mended, end, pixels) for end in ends):
                return pixels
        break
    raise first


def without_gap(data: bytes) -> bytes:
    """A JPEG without bytes between the first marker and the second, by which few programs know it for a JPEG."""
    second = _MARKER.search(data, len(JPEG_START))
    return data if second is None else JPEG_START + data[second.start() :]


def _strictly(data: bytes) -> U8:
    pixels: U8 = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    if simplejpeg.decode_jpeg_header(data)[2] not in ("CMYK", "YCCK"):
        return pixels
    try:
        with Image.open(io.BytesIO(without_gap(data)), formats=("JPEG",)) as image:
            return np.array(image.convert("RGB"))  # as CMYK of other formats, of which libjpeg rounds otherwise
    except Exception as error:
        raise ValueError(str(error)) from None


def _loosely(data: bytes) -> U8:
    """Decode whatever there is: simplejpeg refuses a head with warnings also where it is not to be strict."""
    with Image.open(io.BytesIO(without_gap(data)), formats=("JPEG",)) as image:
        return np.asarray(image)


def _warning(data: bytes) -> str:
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _without(data: bytes, warning: str) -> tuple[bytes, int] | None:
    """The file without what libjpeg's first warning is of, and where bytes behind a scan were removed, else 0.

    None if the warning may be of something that changes pixels.
    """
    for text, pattern, instead in _UNUSED:
        if text in warning and (match := re.search(pattern, data)):
            return data[: match.start(1)] + instead + data[match.end(1) :], 0
    found = _EXTRANEOUS.search(warning)
    if not found:
        return None
    count, code = int(found[1]), int(found[2], 16)
    at_end = warning.replace(f"0x{found[2]}", "0xd9")
    for behind, scan, marker in _markers(data, code):
        # How many bytes of a scan are decoded is seen by ending the file there.
        if (_warning(data[:marker] + b"\xff\xd9") == at_end) if scan else (marker - behind >= count):
            end, fill = marker - count, count > 1 == len({*data[marker - count : marker]})
            return data[:end] + data[marker:], end * (scan and not fill)
    return None


def count_scans(data: bytes, most: int) -> int:
    """The scans of a progressive JPEG, of which each may be next to nothing; 1 of others.

    Of more than `most` those are left out that are behind its end: telephones write a video there.
    """
    start, end = next((marker for *_, marker in _markers(data, _SCAN)), 0), len(data)
    if not _PROGRESSIVE.search(data, 0, start):
        return 1
    if len(_SCANS.findall(data, start)) > most:
        end = next((marker for *_, marker in _markers(data, 0xD9)), end)
    return len(_SCANS.findall(data, start, end))


def _markers(data: bytes, code: int) -> Iterator[tuple[int, bool, int]]:
    """For each marker of a code, where the head before it ends, whether that is of a scan, and where it starts."""
    position, last = 0, 0
    while match := _MARKER.search(data, position):
        found = data[match.end() - 1]
        if found == code:
            yield position, last == _SCAN, match.start()
        position, last = match.end(), found
        if found not in _ALONE:
            position += int.from_bytes(data[position : position + 2])


def _is_whole(data: bytes, end: int, pixels: U8) -> bool:
    """Whether the scan before `end` ends as an encoder ends it: with bits of 1 up to the end of a byte.

    A scan whose bits are damaged also leaves bytes over, when the decoder takes them for fewer blocks than they are. It
    then mostly stops within a byte, of which the other bits are any.
    """

    def unchanged(scan: bytes) -> bool:
        try:
            return np.array_equal(_strictly(scan + data[end:]), pixels)
        except ValueError:
            return False

    scan = data[:end]
    while unchanged(scan[:-1]):  # libjpeg reads some bytes ahead, and does not count them
        scan = scan[:-1]
    if scan.endswith(b"\xff\0"):
        return True
    filled = scan[-1] | scan[-1] + 1  # if its lowest 0 is beyond the bits of the scan, a 1 in its place is the same
    return not unchanged(scan[:-1] + (b"\xff\0" if filled == 0xFF else bytes([filled])))
