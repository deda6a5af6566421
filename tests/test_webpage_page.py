"""The page of app.py as its server runs it, without a browser: what is shown, what is refused, who sees what."""

import dataclasses
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

import predict.run
import train.predictor
import webpage.choices
import webpage.session
from cache.spec import CacheSpec
from loader.batch import LoaderConfig
from model.base import SegmentationNetwork
from model.network import NetworkConfig, build_network
from train.checkpoint import Checkpoint, load_checkpoint, load_network, save_checkpoint
from train.config import TrainConfig
from train.result import Inference

ROOT = Path(__file__).resolve().parents[1]


class Painted(SegmentationNetwork):
    """Says that bright pixels are persons."""

    stride = 32

    def __init__(self):
        super().__init__(8)

    def features(self, image_N4HW):
        raise AssertionError("not needed")

    def forward(self, image_N3HW):
        return (image_N3HW[:, 1:2].float() - 127.5) / 8


def write_model(path, inference=None):
    path.parent.mkdir(parents=True)
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=4), out=path, network=NetworkConfig(width=8))
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path,
        Checkpoint(
            config=config, fingerprint="", spec=CacheSpec(side=96), results=(), network=weights, inference=inference
        ),
    )


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """A folder without runs, one thread, and none of the networks of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKCACHE_MODEL", raising=False)
    # AppTest makes the page the main module, for good: processes that are spawned later would begin with it.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    predict.run._load.cache_clear()


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run whose network says that bright pixels are persons."""

    def load(path, *, device):
        return Painted().to(device), load_network(path, device=device)[1]

    monkeypatch.setattr(train.predictor, "load_network", load)
    write_model(tmp_path / "runs" / "first" / "checkpoints" / "best_model.pth")
    return tmp_path / "runs"


def page(**state):
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in state.items():
        test.session_state[name] = value
    test.run()
    assert not test.exception
    return test


def upload(test, *files):
    test.file_uploader(key="photos").set_value([(name, data, "image/png") for name, data in files]).run()
    assert not test.exception
    return test


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def person(height=60, width=84):
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[height // 10 : height // 2, width // 8 : width // 3] = 235
    return png(pixels)


def texts(found):
    return [element.value for element in found]


def downloads(test):
    return [button.label for button in test.download_button]


def given_to(test, key):
    """What a component of the page was given."""
    (element,) = (each for each in test.get("bidi_component") if each.key == key)
    return json.loads(element.proto.json)


def test_without_a_run_the_page_begins_with_the_sample_and_says_so():
    test = upload(page(), ("anna.png", person()))
    assert any("sample network" in caption for caption in texts(test.caption))
    assert downloads(test) == ["Download PNG"]


def test_a_photo_is_shown_with_its_mask_and_scores(run_folder):
    test = upload(page(), ("anna.png", person()))
    assert downloads(test) == ["Download PNG"]
    assert not test.error
    assert not test.warning
    assert any(caption.startswith("84 × 60 pixels, 9 % kept") for caption in texts(test.caption))
    shown = given_to(test, "compare")
    assert (shown["width"], shown["height"]) == (84, 60)
    assert shown["before"].startswith("data:image/jpeg;base64,")
    assert shown["before"] != shown["after"]
    (scores,) = (html for html in texts(test.html) if "scores" in html and "<style>" not in html)
    assert scores.count('class="score') == 5
    assert "go closer, or crop it" in scores, "of 9 % that are to be 15 %"
    assert "larger photo" not in scores
    test.segmented_control(key="look").set_value("mask").run()
    assert given_to(test, "compare")["afterName"] == "Mask"
    assert given_to(test, "compare")["after"] != shown["after"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_photo_is_told_and_the_others_go_on(run_folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90_000)
    huge = png(np.zeros((400, 400, 3), np.uint8))
    test = upload(page(), ("a*b.png", b"hello"), ("cut.png", person()[:80]), ("huge.png", huge), ("good.png", person()))
    told = [error.replace("\\", "") for error in texts(test.error)]
    assert [line.partition(" cannot be read: ")[0] for line in told] == ["a*b.png", "cut.png", "huge.png"]
    assert r"a\*b" in texts(test.error)[0], "a name is no Markdown"
    assert "not a JPEG" in told[0]
    assert "damaged" in told[1]
    assert "400 x 400 pixels, more than Pillow's limit of 90,000; shrink it first" in told[2]
    assert downloads(test) == ["Download PNG"]
    test = upload(test, ("a*b.png", b"hello"))
    assert len(test.error) == 1
    assert not downloads(test)


def test_photos_are_seen_once_and_those_that_are_gone_are_forgotten(run_folder, monkeypatch):
    seen = []
    see = webpage.session.see
    monkeypatch.setattr(webpage.session, "see", lambda photo, trained: seen.append(photo.name) or see(photo, trained))
    test = upload(page(), ("one.png", person()), ("two.png", person(90, 60)))
    assert downloads(test) == ["Download PNG", "Download all 2 as ZIP"]
    assert [small["name"] for small in given_to(test, "strip")["pictures"]] == ["one.png", "two.png"]
    test.segmented_control(key="kind").set_value("blur").run()
    test.toggle(key="hard").set_value(True).run()
    assert seen == ["one.png", "two.png"]
    assert len(test.session_state["seen"]) == 2
    test = upload(test, ("three.png", person()))
    assert seen == ["one.png", "two.png", "three.png"]
    assert len(test.session_state["seen"]) == 1


def test_files_are_not_copied_in_each_run_of_the_page(run_folder, monkeypatch):
    given = []
    to_upload = webpage.choices.to_upload
    monkeypatch.setattr(webpage.choices, "to_upload", lambda file: given.append(to_upload(file)) or given[-1])
    test = upload(page(), ("one.png", person()))
    test.segmented_control(key="kind").set_value("blur").run()
    assert len(given) == 2
    assert given[0].data is given[1].data


def test_more_photos_than_memory_is_kept_for_are_left_out(run_folder, monkeypatch):
    monkeypatch.setattr("webpage.choices.MOST_PHOTOS", 2)
    test = upload(page(), *((f"{number}.png", person()) for number in range(3)))
    assert texts(test.warning) == ["These are more than 2 photos: the first 2 are taken."]
    assert downloads(test)[1] == "Download all 2 as ZIP"


def slope():
    """A photo that becomes brighter to the right, so that each column has another probability."""
    return png(np.tile(np.linspace(80, 175, 200).astype(np.uint8)[:, None], (120, 1, 3)))


def test_each_background_and_each_way_of_drawing_changes_what_is_shown(run_folder):
    test = upload(page(), ("one.png", slope()))
    looks = [given_to(test, "compare")["after"]]

    def look():
        assert not test.exception
        looks.append(given_to(test, "compare")["after"])

    test.segmented_control(key="kind").set_value("colour").run()
    look()
    test.color_picker(key="colour").set_value("#ff0000").run()
    look()
    test.segmented_control(key="kind").set_value("picture").run()
    assert given_to(test, "compare")["after"] == looks[0], "transparent as long as there is none"
    test.file_uploader(key="picture").set_value(("wall.png", png(np.full((9, 9, 3), 128, np.uint8)), "image/png")).run()
    look()
    test.file_uploader(key="picture").set_value(("wall.png", b"hello", "image/png")).run()
    assert len(test.error) == 1
    test.segmented_control(key="kind").set_value("colour").run()
    assert given_to(test, "compare")["after"] == looks[2], "the colour is still red"
    test.toggle(key="hard").set_value(True).run()
    look()
    assert len(set(looks)) == len(looks)


def test_the_threshold_moves_the_cutouts_edge_and_each_network_begins_at_its_own(run_folder):
    def move(value):
        test.slider[0].set_value(value).run()
        assert not test.exception
        return kept(), given_to(test, "compare")["after"]

    def kept():
        (caption,) = (caption for caption in texts(test.caption) if "% kept" in caption)
        return int(caption.partition("pixels, ")[2].partition(" %")[0])

    test = upload(page(), ("slope.png", slope()))
    assert not test.toggle(key="hard").value
    assert [label.label for label in test.slider] == ["Threshold"]
    assert test.slider[0].value == 0.5
    # The probability is 0.1 at 110 of the levels 80 to 175 (a third of the way) and 0.9 at 145.
    moved = [move(value) for value in (0.1, 0.5, 0.9)]
    assert [share for share, _after in moved] == pytest.approx([68, 50, 32], abs=3)
    assert len({after for _share, after in moved}) == 3
    write_model(run_folder / "second" / "checkpoints" / "best_model.pth", Inference(side=96, threshold=0.3))
    test.run()
    test.selectbox(key="checkpoint").set_value("runs/second/checkpoints/best_model.pth").run()
    assert test.slider[0].value == 0.3
    assert kept() == pytest.approx(57, abs=3)
    assert [share for share, _after in map(move, (0.1, 0.9))] == pytest.approx([68, 32], abs=3)


@pytest.mark.parametrize(("category", "named"), [("person", "persons"), (("dog", "cat"), "cat, dog")])
def test_nothing_found_in_the_photo_is_told(run_folder, category, named):
    model = run_folder / "first" / "checkpoints" / "best_model.pth"
    spec = CacheSpec(side=96, category=category)
    save_checkpoint(model, dataclasses.replace(load_checkpoint(model), spec=spec))
    test = upload(page(), ("night.png", png(np.zeros((40, 40, 3), np.uint8))))
    assert texts(test.warning) == [f"The network finds no {named} in this photo."]
    assert downloads(test) == ["Download PNG"]


def test_a_bad_checkpoint_is_told_and_another_one_can_be_chosen(run_folder):
    bad = run_folder / "second" / "checkpoints" / "best_model.pth"
    bad.parent.mkdir(parents=True)
    bad.write_text("hello")
    test = page()
    assert texts(test.error) == ["This network cannot be used; choose another one in the settings above."]
    assert any("is no checkpoint of a training run" in caption.replace("\\", "") for caption in texts(test.caption))
    assert test.selectbox(key="checkpoint").options == ["runs/second", "runs/first", "Sample network"]
    test.selectbox(key="checkpoint").set_value("runs/first/checkpoints/best_model.pth").run()
    assert not test.error
    assert downloads(upload(test, ("one.png", person()))) == ["Download PNG"]


def test_a_network_that_was_trained_anew_is_loaded_and_sees_all_photos_anew(run_folder, monkeypatch):
    test = upload(page(), ("one.png", person()))
    before = test.session_state["seen by"]
    test.run()
    assert test.session_state["seen by"] is before
    os.utime(run_folder / "first" / "checkpoints" / "best_model.pth", (1000, 1000))
    test.run()
    assert not test.exception
    assert test.session_state["seen by"] is not before


def test_the_variable_names_the_first_network(run_folder, tmp_path, monkeypatch):
    write_model(tmp_path / "elsewhere" / "mine.pth")
    monkeypatch.setenv("MASKCACHE_MODEL", "elsewhere/mine.pth")
    assert page().selectbox(key="checkpoint").options == ["elsewhere/mine.pth", "runs/first", "Sample network"]
    monkeypatch.setenv("MASKCACHE_MODEL", "missing.pth")
    test = page()
    assert len(test.error) == 1
    assert any("does not exist" in caption for caption in texts(test.caption))


class Marked:
    """A catalogue whose translations can be told from English."""

    def __init__(self, mark):
        self._mark = mark

    def gettext(self, message):
        return f"{self._mark}{message}"


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setattr(webpage.session, "catalogue", lambda language: Marked({"en": "", "es": "¡"}[language]))


def test_every_word_of_the_page_is_translated(run_folder, marked):
    def words(test):
        yield from (texts(group) for group in (test.title, test.caption, test.subheader, test.error, test.warning))
        for group in (test.file_uploader, test.segmented_control, test.slider, test.toggle, test.download_button):
            yield [widget.label for widget in group]
            yield [widget.help for widget in group if getattr(widget, "help", "")]
        yield [tab.label for tab in test.tabs] + [expander.label for expander in test.expander]
        yield [option for name in ("kind", "look") for option in test.segmented_control(key=name).options]

    test = upload(page(language="es"), ("bad.png", b""), ("good.png", png(np.zeros((40, 40, 3), np.uint8))))
    for kind in ("colour", "picture", "blur"):
        test.segmented_control(key="kind").set_value(kind).run()
        assert not test.exception
        for found in words(test):
            assert all("¡" in word for word in found), found
    shown = given_to(test, "compare")
    assert all(shown[name].startswith("¡") for name in ("beforeName", "afterName", "label"))
    html = "".join(texts(test.html))
    assert html.count("¡") >= 4 * 3 + 6, "titles, goals and hints of the scores; words in the place of Streamlit's"


def test_two_sessions_speak_their_own_languages(run_folder, marked):
    english, spanish = page(language="en"), page(language="es")
    for _round in range(2):
        for test, title in ((english, "Remove backgrounds"), (spanish, "¡Remove backgrounds")):
            test.run()
            assert texts(test.title) == [title]
    english.segmented_control(key="language").set_value("es").run()
    assert texts(english.title) == ["¡Remove backgrounds"]


def test_two_sessions_share_one_network(run_folder):
    first, second = (upload(page(), ("one.png", person())).session_state["seen by"] for _session in range(2))
    assert first is second


@pytest.mark.parametrize(
    ("hidden", "said"),
    [(True, "wants the package streamlit; pip install -e '.[app]'"), (False, "wants a server; streamlit run app.py")],
)
def test_python_app_py_says_what_to_do(hidden, said, start_child):
    hide = "sys.modules['streamlit'] = None" if hidden else ""
    code = f"import runpy, sys\n{hide}\nrunpy.run_path({str(ROOT / 'app.py')!r}, run_name='__main__')"
    child = start_child([sys.executable, "-c", code])
    _, errors = child.communicate()
    assert child.returncode == 1
    assert errors.splitlines()[-1].endswith(said)
