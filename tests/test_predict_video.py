"""Videos through `predict`: where the mask lies in each frame, what is kept of the file, what is refused."""

import json
import os
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import train.predictor
from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig
from model.base import SegmentationNetwork
from model.network import NetworkConfig, build_network
from predict.config import PredictConfig, PredictError
from predict.mask import Square
from predict.plan import plan_jobs
from predict.run import predict as run_prediction
from preprocess.image import fit_box
from train.checkpoint import Checkpoint, load_network, save_checkpoint
from train.config import TrainConfig

av = pytest.importorskip("av", reason="no av; pip install -e '.[video]'")

from predict.video import source  # noqa: E402
from predict.video.pipeline import Smoother  # noqa: E402  # wants nothing of av, but its package does

SIDE, HEIGHT, WIDTH = 96, 60, 84


class Painted(SegmentationNetwork):
    """Says that bright pixels are persons."""

    stride = 32

    def __init__(self):
        super().__init__(8)

    def features(self, image_N4HW):
        raise AssertionError("not needed")

    def forward(self, image_N3HW):
        return (image_N3HW[:, 1:2].float() - 127.5) / 4


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best_model.pth"
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=SIDE), results=(), network=weights)
    )
    return path


@pytest.fixture(autouse=True)
def _painted(monkeypatch):
    def load(path, *, device):
        return Painted().to(device), load_network(path, device=device)[1]

    monkeypatch.setattr(train.predictor, "load_network", load)


def make(model, inputs, out, advance=None, watch=None, **values):
    values = {"threads": 2, "smooth": 0.0, "overwrite": True, **values}
    config = PredictConfig(checkpoint=model, inputs=tuple(map(str, inputs)), out=out, **values)
    return run_prediction(config, plan_jobs(config), advance, watch)


def picture(number, height=HEIGHT, width=WIDTH):
    """Dark green, with a person of light red that walks to the right."""
    pixels = np.full((height, width, 3), (10, 60, 20), np.uint8)
    left = width // 8 + 2 * number
    pixels[height // 6 : height // 2, left : left + width // 4] = (240, 200, 180)
    return pixels


def truth(number, height=HEIGHT, width=WIDTH):
    return picture(number, height, width)[..., 0] > 100


def write_clip(
    path, pictures, *, codec="libx264", pixels="yuv420p", stamps=None, unit=Fraction(1, 25), sound=None, **values
):
    """A video of these pictures, at `stamps` in `unit`s, and one or two streams of sound."""
    container = av.open(str(path), "w", **{key: values.pop(key) for key in ("format", "options") if key in values})
    pictures = list(pictures)
    stream = container.add_stream(codec, rate=values.pop("rate", 25), time_base=unit)
    stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pixels
    if turn := values.pop("turn", 0):
        stream.set_display_rotation(turn)
    for name, value in values.items():
        setattr(stream.codec_context, name, value)
    voice = container.add_stream(sound, rate=48000) if sound else None
    stamps, spoken = stamps or range(len(pictures)), 0
    for pixels_HW3, stamp in zip(pictures, stamps, strict=True):
        frame = av.VideoFrame.from_ndarray(pixels_HW3, "rgb24")
        if stream.codec_context.colorspace == 1:
            frame = frame.reformat(format=pixels, dst_colorspace=1, dst_color_range=1)
        frame.pts, frame.time_base = stamp, unit
        container.mux(stream.encode(frame))
        while voice and spoken < 48000 * (stamp + 1) * unit:
            container.mux(voice.encode(tone(voice.codec_context.frame_size or 960, spoken)))
            spoken += voice.codec_context.frame_size or 960
    container.mux(stream.encode())
    if voice:
        container.mux(voice.encode())
    container.close()
    return path


def tone(samples, start):
    wave = (8000 * np.sin(0.03 * np.arange(start, start + samples))).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], "s16", "stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
    return frame


def frames_of(path, pixels="rgb24"):
    """All frames of a video, `(N, H, W[, C])`, and their times in seconds."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        return np.stack([frame.to_ndarray(format=pixels) for frame in decoded]), [frame.time for frame in decoded]


def alpha_of(path, decoder):
    """The fourth plane of all frames of a video, `(N, H, W)` in 0 to 255, by a decoder that knows it."""
    with av.open(str(path)) as container:
        stream, context = container.streams.video[0], av.CodecContext.create(decoder, "r")
        decoded = [frame for packet in container.demux(stream) for frame in context.decode(packet)]
        planes = []
        for frame in decoded:
            plane, deep = frame.planes[3], frame.format.components[3].bits > 8
            values = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)[:, : plane.width]
            planes.append(values * (255 / (2 ** frame.format.components[3].bits - 1)))
        return np.stack(planes)


def sound_of(path):
    """Bytes and times of all packets of sound."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [bytes(packet) for packet in packets], [float(packet.pts * packet.time_base) for packet in packets]


def distance(alpha, expected):
    return np.abs(alpha.astype(float) - 255 * expected).mean()


def through_square(mask):
    """What the way through the square of 96 pixels, and back, leaves of a mask."""
    height, width = mask.shape
    scale = SIDE / max(height, width)
    small = cv2.resize(mask.astype(float), (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)
    return cv2.resize((small > 0.5).astype(float), (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twenty-one frames and a tone."""
    return write_clip(tmp_path_factory.mktemp("clip") / "walk.mp4", map(picture, range(21)), sound="aac")


@pytest.mark.parametrize(("video_format", "decoder"), [("webm", "libvpx-vp9"), ("mov", "prores")])
def test_a_cutout_has_its_alpha_in_each_frame(model, clip, tmp_path, video_format, decoder):
    report = make(model, [clip], tmp_path, video_format=video_format)
    (video,) = report.videos
    assert report.photos == ()
    assert video.status == "done"
    assert (video.height, video.width, video.frames, video.fps) == (HEIGHT, WIDTH, 21, 25.0)
    assert video.coverage == pytest.approx(100 * np.mean([truth(k).mean() for k in range(21)]), abs=0.5)
    assert video.output == str(tmp_path / f"walk.{video_format}")
    alphas = alpha_of(video.output, decoder)
    made, times = frames_of(video.output)
    assert times == pytest.approx([k / 25 for k in range(21)], abs=0.0006)  # WebM counts milliseconds
    original, _ = frames_of(clip)
    for number, (frame, alpha, before) in enumerate(zip(made, alphas, original, strict=True)):
        mask = truth(number)
        assert distance(alpha, mask) < 3
        inside, outside = (cv2.erode(part.astype(np.uint8), np.ones((9, 9))) > 0 for part in (mask, ~mask))
        assert np.abs(frame[inside].astype(float) - before[inside]).mean() < 4
        assert np.abs(frame[outside]).mean() < 4, "the background is gone, not hidden"
    if video_format == "mov":
        assert sound_of(video.output)[0] == sound_of(clip)[0]
        assert sound_of(video.output)[1] == pytest.approx(sound_of(clip)[1], abs=0.001)
        assert video.notes == ()
    else:
        assert video.notes == ("its sound (aac) is left out: .webm cannot hold it; --video-format mov can",)


def test_masks_are_those_of_photos(model, clip, tmp_path):
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames_of(clip)[0]):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number:02d}.png")
    make(model, [tmp_path / "frames"], tmp_path / "photos", kind="mask")
    for values in ({"batch_size": 1, "threads": 1}, {"batch_size": 8}, {"batch_size": 64}):
        report = make(model, [clip], tmp_path / "video", kind="mask", **values)
        made, _ = frames_of(report.videos[0].output, pixels="gray")
        for number, mask in enumerate(made):
            photo = np.asarray(Image.open(tmp_path / "photos" / f"{number:02d}.png"))
            assert np.abs(mask.astype(float) - photo).mean() < 1.5  # H.264
    with av.open(report.videos[0].output) as container:
        assert not container.streams.audio
    refined = make(model, [clip], tmp_path / "refined", kind="mask", hard=True)
    assert set(np.unique(frames_of(refined.videos[0].output, pixels="gray")[0] // 64)) == {0, 3}


def test_a_composite_keeps_times_sound_and_colours(model, tmp_path):
    stamps = [0, 1, 2, 5, 6, 13, 14, 15, 40, 41]
    for name, tag in (("tagged", 1), ("untagged", 2)):
        clip = write_clip(tmp_path / f"{name}.mp4", map(picture, range(10)), stamps=stamps, unit=Fraction(1, 30),
                          sound="aac", colorspace=tag)  # fmt: skip
        (video,) = make(model, [clip], tmp_path / "out", kind="composite", background="#2040c0").videos
        made, times = frames_of(video.output)
        assert times == frames_of(clip)[1] == pytest.approx([stamp / 30 for stamp in stamps])
        assert sound_of(video.output) == sound_of(clip)
        for number, frame in enumerate(made):
            mask = truth(number).astype(np.uint8)
            inside, outside = (cv2.erode(part, np.ones((7, 7), np.uint8)) > 0 for part in (mask, 1 - mask))
            assert np.abs(frame[inside] - np.array((240.0, 200, 180))).mean() < 5, name
            assert np.abs(frame[outside] - np.array((32.0, 64, 192))).mean() < 5, name
        with av.open(video.output) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
            assert container.streams.video[0].codec_context.colorspace == (1 if tag == 1 else 6)


def test_opus_is_copied_into_a_webm(model, tmp_path):
    clip = write_clip(tmp_path / "a.mkv", map(picture, range(9)), sound="libopus")
    (video,) = make(model, [clip], tmp_path / "out").videos
    assert video.notes == ()
    assert sound_of(video.output)[0] == sound_of(clip)[0]


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_frames_are_upright(model, tmp_path, turn):
    stored = [np.rot90(picture(k), -turn // 90) for k in range(5)]
    clip = write_clip(tmp_path / "phone.mp4", map(np.ascontiguousarray, stored), turn=turn)
    assert frames_of(clip)[0].shape[1:3] == stored[0].shape[:2]
    (video,) = make(model, [clip], tmp_path / "out", kind="mask").videos
    assert (video.height, video.width) == (HEIGHT, WIDTH)
    made, _ = frames_of(video.output, pixels="gray")
    for number, mask in enumerate(made):
        assert distance(mask, truth(number)) < 4
    with av.open(video.output) as container:
        assert next(container.decode(video=0)).rotation == 0


@pytest.mark.parametrize(("height", "width"), [(60, 85), (61, 84), (17, 301)])
def test_odd_sizes_get_one_more_pixel_where_the_codec_wants_it(model, tmp_path, height, width):
    pictures = [picture(k, height, width) for k in range(4)]
    clip = write_clip(tmp_path / "odd.mkv", pictures, codec="ffv1", pixels="bgr0")
    assert frames_of(clip)[0].shape[1:3] == (height, width)
    for values, size in (
        ({"kind": "mask"}, (height + height % 2, width + width % 2)),
        ({"kind": "composite", "background": "blue"}, (height + height % 2, width + width % 2)),
        ({"video_format": "webm"}, (height, width)),
        ({"video_format": "mov"}, (height, width + width % 2)),
    ):
        (video,) = make(model, [clip], tmp_path / "out", **values).videos
        made, _ = frames_of(video.output)
        assert made.shape == (4, *size, 3), values
        assert (video.height, video.width) == (height, width)
    report = make(model, [clip], tmp_path / "out", kind="mask", soft=True)
    masks, _ = frames_of(report.videos[0].output, pixels="gray")
    assert distance(masks[3][:height, :width], through_square(truth(3, height, width))) < 3
    np.testing.assert_array_equal(masks[3][height - 1], masks[3][-1])


@pytest.mark.parametrize(("aspect", "height", "width"), [("4/3", 60, 112), ("3/4", 80, 84)])
def test_pixels_that_are_no_squares_become_squares(model, tmp_path, aspect, height, width):
    clip = write_clip(tmp_path / "dv.mp4", map(picture, range(3)), sample_aspect_ratio=Fraction(aspect))
    for values in ({}, {"kind": "mask"}):
        (video,) = make(model, [clip], tmp_path / "out", **values).videos
        assert (video.height, video.width) == (height, width)
        with av.open(video.output) as container:
            assert container.streams.video[0].sample_aspect_ratio in (None, 1)
    made, _ = frames_of(video.output, pixels="gray")
    assert distance(made[2], cv2.resize(truth(2).astype(np.uint8), (width, height))) < 6


def test_a_recording_may_begin_late(model, tmp_path):
    stamps = range(500, 512)
    clip = write_clip(tmp_path / "late.mkv", map(picture, range(12)), stamps=stamps, max_b_frames=0)
    assert frames_of(clip)[1][0] == 20
    (video,) = make(model, [clip], tmp_path / "out", kind="mask").videos
    assert frames_of(video.output)[1] == pytest.approx([k / 25 for k in range(12)])


def tags(data):
    """The tags of an FLV: the kind of each, and its bytes."""
    at = 13
    while at < len(data):
        end = at + 11 + int.from_bytes(data[at + 1 : at + 4])
        yield data[at], data[at:end]
        at = end + 4


def test_sound_that_a_file_does_not_announce_may_come_late(model, tmp_path):
    """PyAV then fails at the end of the file."""
    clip = write_clip(tmp_path / "whole.flv", (picture(k % 20, 32, 32) for k in range(420)), codec="flv1", sound="aac")
    data, late, pictures = clip.read_bytes(), tmp_path / "late.flv", 0
    with late.open("wb") as file:
        file.write(data[:4] + b"\x01" + data[5:13])
        for kind, tag in tags(data):
            pictures += kind == 9
            if kind == 9 or (kind == 8 and pictures > 400):
                file.write(tag + len(tag).to_bytes(4))
    with av.open(str(late)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        with pytest.raises(IndexError):
            list(container.demux())
    (video,) = make(model, [late], tmp_path / "out", kind="mask").videos
    assert (video.status, video.frames) == ("done", 420)


def test_frames_of_any_size_cost_no_memory(model, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "wide.mp4", map(picture, range(2)), sample_aspect_ratio=Fraction(4))
    monkeypatch.setattr(source, "MOST_PIXELS", 3 * HEIGHT * WIDTH)
    (video,) = make(model, [clip], tmp_path / "out").videos
    assert video.reason == "its frames have 20,160 pixels, more than 15,120"


@pytest.mark.parametrize("error", [av.error.PatchWelcomeError(1, "Not yet implemented"), ValueError("no such format")])
def test_pixels_that_cannot_be_converted_are_told(model, clip, tmp_path, monkeypatch, error):
    convert, seen = source.Colours.to_rgb, []

    def to_rgb(*arguments):
        seen.append(arguments)
        if len(seen) == 3:
            raise error
        return convert(*arguments)

    monkeypatch.setattr(source.Colours, "to_rgb", to_rgb)
    (video,) = make(model, [clip], tmp_path / "out").videos
    assert re.fullmatch(r"it is damaged after 0\.1 s: (Not yet implemented|no such format)", video.reason)
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    """The same video in files of several kinds."""
    folder = tmp_path_factory.mktemp("containers")
    pictures = [picture(k % 20) for k in range(60)]
    for name, options in (
        ("front.mp4", {"options": {"movflags": "faststart"}}),
        ("back.mp4", {}),
        ("b.mkv", {}),
        ("c.webm", {"codec": "libvpx-vp9"}),
        ("d.avi", {"codec": "mpeg4"}),
        ("e.flv", {}),
    ):
        write_clip(folder / name, pictures, **{"gop_size": 10, **options})
    return sorted(folder.iterdir())


def test_a_cut_video_is_told_and_nothing_of_it_is_kept(model, containers, tmp_path):
    cut = tmp_path / "cut"
    cut.mkdir()
    for clip in containers:
        data = clip.read_bytes()
        for share in (0.4, 0.7):
            (cut / f"{clip.stem}-{share}{clip.suffix}").write_bytes(data[: int(share * len(data))])
    report = make(model, [cut], tmp_path / "out", kind="mask")
    for video in report.videos:
        assert video.status == "rejected", video
        assert video.output is None
        assert re.match("it is cut: of what its header|.*head is|it is damaged at", video.reason), video
    assert sum("is cut" in video.reason for video in report.videos) >= 8
    assert not list((tmp_path / "out").iterdir())
    for clip in containers:
        assert make(model, [clip], tmp_path / "out", kind="mask").videos[0].frames == 60, clip


def test_damage_amidst_a_video_is_told(model, containers, tmp_path):
    told, out = 0, tmp_path / "out"
    for whole in containers:
        data = bytearray(whole.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 300] = bytes(range(1, 101)) * 3
        clip = tmp_path / whole.name
        clip.write_bytes(data)
        (video,) = make(model, [clip], out, kind="mask").videos
        if video.status == "rejected":
            told += 1
            assert "damaged" in video.reason or "cut" in video.reason
            assert not list(out.glob(f"*{whole.stem}*"))
    assert told >= 5


def test_what_holds_no_video_is_told(model, clip, tmp_path):
    for name, data in (("empty", b""), ("text", b"hello" * 999)):
        (tmp_path / f"{name}.mp4").write_bytes(data)
    with av.open(str(tmp_path / "song.mp4"), "w") as song, av.open(str(clip)) as walk:
        voice = song.add_stream_from_template(walk.streams.audio[0])
        for packet in walk.demux(audio=0):
            if packet.size:
                packet.stream = voice
                song.mux(packet)
    videos = make(model, [tmp_path], tmp_path / "out").videos
    reasons = {video.input.rpartition("/")[2]: video.reason for video in videos if video.status == "rejected"}
    assert "no video, or its head is damaged" in reasons["empty.mp4"]
    assert "no video, or its head is damaged" in reasons["text.mp4"]
    assert reasons["song.mp4"] == "it has no video in it, only audio"
    assert not (tmp_path / "out").exists()


def test_a_result_that_cannot_be_written_is_an_error_and_one_that_is_there_stays(model, clip, tmp_path):
    with pytest.raises(PredictError, match=r"cannot write .*walk\.mp4: Not a directory; free .* choose another --out"):
        make(model, [clip], clip / "beneath a file", kind="mask")
    (tmp_path / ".walk.mp4.tmp").mkdir()
    with pytest.raises(PredictError, match=r"cannot write .*walk\.mp4: Is a directory"):
        make(model, [clip], tmp_path, kind="mask")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "walk.mp4").write_text("mine")
    with pytest.raises(PredictError, match="without a record of how"):
        make(model, [clip], tmp_path / "out", kind="mask", overwrite=False)
    assert (tmp_path / "out" / "walk.mp4").read_text() == "mine"
    make(model, [clip], tmp_path / "out", kind="mask")
    (video,) = make(model, [clip], tmp_path / "out", kind="mask", overwrite=False).videos
    assert (video.status, video.frames) == ("skipped", 0)


def test_the_command_takes_photos_and_videos_together(model, clip, tmp_path):
    Image.fromarray(picture(3)).save(tmp_path / "photo.png")
    arguments = ["predict", clip, tmp_path / "photo.png", "--model", model, "--out", tmp_path / "out"]
    invoked = CliRunner(catch_exceptions=False).invoke(main, [*map(str, arguments), "--json"])
    assert invoked.exit_code == 0
    found = json.loads(invoked.stdout)
    assert (found["done"], found["rejected"], len(found["photos"])) == (2, 0, 1)
    (video,) = found["videos"]
    assert (video["status"], video["frames"], video["width"], video["height"]) == ("done", 21, WIDTH, HEIGHT)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"walk.webm", "photo.png"}
    again = CliRunner(catch_exceptions=False).invoke(main, [*map(str, arguments), "--overwrite"])
    assert re.search(r"walk\.mp4: 21 frames of 84 x 60 at 25\.0 fps in .*frames/s", again.stdout)
    assert "its sound (aac) is left out: .webm cannot hold it; --video-format mov can" in again.stdout


def shots(rng, change, count=200, side=32):
    """Squares whose pixels change by `change` from frame to frame, and answers that are right but for noise."""
    box = fit_box(side, side, side, "stretch")
    for number in range(count):
        pixels = np.full((side, side, 3), 100 + change * (number % 2), np.uint8)
        yield (0.5 + rng.normal(0, 0.05, (side, side))).astype(np.float32), Square(pixels, box)


@pytest.mark.parametrize("weight", [0.5, 0.8])
def test_smoothing_averages_what_stands_still_and_nothing_else(weight):
    rng, smoother = np.random.default_rng(0), Smoother(weight)
    steady = np.stack([smoother.smooth(*shot) for shot in shots(rng, change=0)])[50:]
    # The variance of an exponential average of independent values is so much smaller.
    assert steady.std() == pytest.approx(0.05 * np.sqrt((1 - weight) / (1 + weight)), rel=0.03)
    assert steady.mean() == pytest.approx(0.5, abs=0.001)
    smoother, moving = Smoother(weight), list(shots(rng, change=100, count=9))
    for answer, square in moving:
        np.testing.assert_allclose(smoother.smooth(answer, square), answer, atol=1e-6)
    # Where a third of the picture changes it is another scene, and the rest of it is not averaged either.
    (first, square), (second, _square) = shots(rng, change=0, count=2)
    pixels = square.pixels.copy()
    pixels[: len(pixels) * 2 // 5] += 100
    smoother = Smoother(weight)
    smoother.smooth(first, square)
    np.testing.assert_array_equal(smoother.smooth(second, Square(pixels, square.box)), second)
    assert Smoother(0.0).smooth(first, square) is first


def test_a_moving_person_leaves_no_trail(model, clip, tmp_path):
    masks = [
        frames_of(make(model, [clip], tmp_path / str(smooth), kind="mask", smooth=smooth).videos[0].output, "gray")[0]
        for smooth in (0.0, 0.8)
    ]
    assert np.abs(masks[0].astype(float) - masks[1]).mean() < 1


class Wavering(Painted):
    """Has another opinion of each frame: by up to some pixels of the edge, as networks have."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, image_N3HW):
        cells_N1hw = torch.randn(len(image_N3HW), 1, 12, 12, generator=self.generator)
        logits_N1HW = super().forward(image_N3HW)
        return logits_N1HW + 8 * torch.nn.functional.interpolate(cells_N1hw, logits_N1HW.shape[2:], mode="bicubic")


@pytest.mark.parametrize("soft", [False, True])
def test_smoothing_lowers_the_flicker_of_the_mask(model, tmp_path, monkeypatch, soft):
    load = train.predictor.load_network
    monkeypatch.setattr(
        train.predictor, "load_network", lambda path, device: (Wavering(), load(path, device=device)[1])
    )
    still = cv2.GaussianBlur(picture(8, 120, 168), (0, 0), 4)
    clip = write_clip(tmp_path / "still.mkv", [still] * 16, codec="ffv1", pixels="bgr0")
    flicker, area = [], []
    for smooth in (0.0, 0.8):
        report = make(model, [clip], tmp_path / str(smooth), kind="mask", soft=soft, smooth=smooth)
        masks = frames_of(report.videos[0].output, pixels="gray")[0][6:].astype(float)
        flicker.append(np.abs(np.diff(masks, axis=0)).sum() / masks.sum())
        area.append(masks.mean())
    assert flicker[0] > 0.01
    assert flicker[1] < 0.6 * flicker[0]
    assert area[1] == pytest.approx(area[0], rel=0.1)


@pytest.mark.parametrize(("kind", "name"), [("cutout", "a.webm"), ("mask", "a.mp4"), ("mov", "a.mov")])
def test_results_of_other_options_are_not_done(model, tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    write_clip("a.mp4", map(picture, range(3)))
    kinds = ("--video-format", "mov") if kind == "mov" else ("--as", kind)
    arguments = ["predict", "a.mp4", "--model", str(model), "--out", "out", *kinds]

    def run(*more, code=0):
        result = CliRunner(catch_exceptions=False).invoke(main, [*arguments, *more])
        assert result.exit_code == code, result.output
        return result.output

    run()
    before = Path("out", name).read_bytes()
    assert "1 skipped" in run()
    said = run("--smooth", "0", code=1)
    assert f"out holds results that were made otherwise: --smooth: 0.8, not 0.0 (out/{name}); use another" in said
    assert f"--soft: no, not yes (out/{name})" in run("--soft", code=1)
    os.utime("a.mp4", ns=(0, 7))
    assert f"of another input, or of one that has changed since (out/{name})" in run(code=1)
    assert Path("out", name).read_bytes() == before
    run("--smooth", "0", "--overwrite")
    assert "1 skipped" in run("--smooth", "0")
