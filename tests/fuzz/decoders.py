"""Photos and videos of users: their decoders are others', what we make of their heads and errors is ours."""

from __future__ import annotations

import io
import tempfile
import zlib
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from predict.photo import count_pixels, decode_photo
from preprocess.errors import ImageError
from preprocess.image import decode_rgb, read_head
from tests.fuzz import Target

av = pytest.importorskip("av", reason="no av; pip install -e '.[video]'")

from predict.video.source import Frame, VideoError, VideoSource  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix="maskcache-fuzz-")

# --- photos ----------------------------------------------------------------------------------------------------------

PNG_START = b"\x89PNG\r\n\x1a\n"


def photos() -> list[bytes]:
    """A small photo in each format and mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 17, 4), dtype=np.uint8)
    rgba, rgb = Image.fromarray(pixels), Image.fromarray(pixels[..., :3])
    grey = rgb.convert("L")
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 250)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    found = []

    def save(image: Image.Image, kind: str, **options: object) -> None:
        buffer = io.BytesIO()
        with suppress(KeyError, OSError):  # Pillow was built without that format
            image.save(buffer, kind, **options)
            found.append(buffer.getvalue())

    for image in (rgb, grey, rgb.convert("CMYK")):
        save(image, "JPEG")
    save(rgb, "JPEG", progressive=True, exif=exif, icc_profile=b"profile", comment=b"text")
    save(rgb, "JPEG", restart_marker_blocks=1, subsampling=2)
    for image in (rgb, rgba, grey, deep, rgb.convert("P"), rgb.convert("1"), grey.convert("LA")):
        save(image, "PNG")
    save(rgb.convert("P"), "PNG", transparency=3)
    save(rgb, "PNG", exif=exif, icc_profile=b"profile")
    for image in (rgb, rgba):
        save(image, "WEBP", exif=exif)
        save(image, "WEBP", lossless=True)
        save(image, "AVIF")
        save(image, "BMP")
        save(image, "JPEG2000")
    for image in (rgb, rgba, deep, grey, rgb.convert("CMYK"), grey.convert("F"), grey.convert("I")):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
            if compression == "raw" or image is rgb:
                save(image, "TIFF", compression=compression, exif=exif)
    save(rgb, "GIF", save_all=True, append_images=[rgba, grey], transparency=0)
    save(rgb, "PPM")
    save(grey, "PPM")
    return found


def check_photo(data: bytes) -> None:
    """A photo is decoded by both readers, as Pillow decodes it, or refused."""
    data = _signed(data)
    path = Path(FOLDER.name) / "photo"
    path.write_bytes(data)
    count_pixels(path)
    with suppress(ImageError):
        photo = decode_photo(data)
        assert photo.pixels.dtype == np.uint8
        assert photo.pixels.shape[2:] == (3,)
    with suppress(ImageError):
        head = read_head(data)
        pixels = decode_rgb(data)
        if data.startswith(b"\xff\xd8\xff") and pixels.shape[:2] == (head.height, head.width):
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                assert np.array_equal(pixels, np.array(image.convert("RGB"))), "strictly decoded, it is Pillow's"


def _signed(data: bytes) -> bytes:
    """A PNG with checksums of its chunks that are right."""
    if not data.startswith(PNG_START):
        return data
    out, at = bytearray(data), len(PNG_START)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        end = at + 8 + size
        if end + 4 > len(data):
            break
        out[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(out)


# --- videos ----------------------------------------------------------------------------------------------------------

MOST_ITEMS = 60


def videos() -> list[bytes]:
    """Four frames in each of some formats, with sound in some."""
    found = []
    for suffix, codec, pixels, sound in (
        ("mp4", "mpeg4", "yuv420p", "aac"), ("mp4", "libx264", "yuv420p", None), ("mkv", "mpeg4", "yuv420p", "mp3"),
        ("webm", "libvpx-vp9", "yuv420p", None), ("avi", "mjpeg", "yuvj420p", None),
        ("mov", "prores", "yuv422p10le", None),
        ("ts", "mpeg2video", "yuv420p", None), ("gif", "gif", "rgb8", None), ("mkv", "rawvideo", "rgb24", None),
        ("flv", "flv1", "yuv420p", None), ("ogv", "libtheora", "yuv420p", None),
        ("y4m", "wrapped_avframe", "yuv420p", None),
    ):  # fmt: skip
        path = Path(FOLDER.name) / f"clip.{suffix}"
        with suppress(av.FFmpegError, ValueError), av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
            voice = container.add_stream(sound, rate=48000) if sound else None
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 40 * number, np.uint8), "rgb24")
                container.mux(stream.encode(frame.reformat(format=pixels)))
                if voice:
                    tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                    tone.sample_rate, tone.pts, tone.time_base = 48000, 1024 * number, Fraction(1, 48000)
                    container.mux(voice.encode(tone))
            container.mux(stream.encode())
            if voice:
                container.mux(voice.encode())
        if path.exists() and path.stat().st_size:
            found.append(path.read_bytes())
            path.unlink()
    return found


def check_video(data: bytes) -> None:
    """The first items of a video are read, its frames in one size and in their order, or it is refused."""
    av.logging.set_level(None)
    path = Path(FOLDER.name) / "clip"
    path.write_bytes(data)
    with suppress(VideoError), VideoSource(path, threads=1) as source:
        before = None
        for item in islice(source.items(), MOST_ITEMS):
            if isinstance(item, Frame):
                assert item.pixels.shape == (source.height, source.width, 3)
                assert before is None or item.start > before
                before = item.start


TARGETS = {"photo": Target(check=check_photo, seeds=photos), "video": Target(check=check_video, seeds=videos)}
