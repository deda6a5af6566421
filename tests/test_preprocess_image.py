import cv2
import numpy as np
import pytest

from preprocess.errors import ImageError
from preprocess.image import decode_rgb, encode_jpeg, read_rgb


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:90, :120]
    return np.stack([x * 2, y * 2, 255 - x - y], axis=-1).astype(np.uint8)


def test_jpeg_decodes_as_in_opencv(picture):
    data = encode_jpeg(picture, 90).tobytes()
    ours = decode_rgb(data)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours.astype(int) - picture).mean() < 2


def test_jpeg_is_written_without_chroma_subsampling(picture):
    import simplejpeg

    assert simplejpeg.decode_jpeg_header(encode_jpeg(picture, 95).tobytes())[2:] == ("YCbCr", "444")


def test_gray_png_and_16_bits_become_rgb(picture, tmp_path):
    gray = picture[:, :, 0]
    for name, pixels in (("g.jpg", gray), ("g.png", gray), ("deep.png", gray.astype(np.uint16) * 257)):
        assert cv2.imwrite(str(tmp_path / name), pixels)
        rgb = read_rgb(tmp_path / name)
        assert rgb.shape == (90, 120, 3)
        assert rgb.dtype == np.uint8
        assert np.abs(rgb.astype(int) - gray[..., None]).max() <= (8 if name.endswith("jpg") else 1)


def test_cmyk_jpeg_is_converted(picture, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "cmyk.jpg").astype(int) - picture).mean() < 6


def test_exif_orientation_is_not_applied(picture, tmp_path):
    image = pytest.importorskip("PIL.Image")
    photo = image.fromarray(picture)
    exif = photo.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees to look at it
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (90, 120, 3)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_a_truncated_jpeg_is_refused(picture, tmp_path, cut):
    data = encode_jpeg(picture, 95).tobytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(ImageError, match=r"damaged: .*(Premature end|subsampling)"):
        read_rgb(tmp_path / "cut.jpg")


def test_what_is_no_image_is_refused(tmp_path):
    with pytest.raises(ImageError, match="missing"):
        read_rgb(tmp_path / "none.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read_rgb(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(ImageError, match="not an image"):
        read_rgb(tmp_path / "text.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match="not an image file"):
        read_rgb(tmp_path / "folder.jpg")
