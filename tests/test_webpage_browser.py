"""The page in a real browser: `streamlit run app.py`, uploads, the slider, downloads, a phone with its camera."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from cache.spec import CacheSpec
from cli import main
from loader.batch import LoaderConfig
from model.network import NetworkConfig, build_network
from preprocess.synth.dataset import SynthConfig, make_dataset
from train.checkpoint import Checkpoint, save_checkpoint
from train.config import TrainConfig
from webpage.server import MOST_FILES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}
PHONE = {
    "viewport": {"width": 390, "height": 844}, "locale": "es-ES", "is_mobile": True, "has_touch": True,
    "device_scale_factor": 1, "permissions": ["camera"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run, whose network was never trained, and photos of drawn people."""
    root = tmp_path_factory.mktemp("app")
    path = root / "runs" / "first" / "checkpoints" / "best_model.pth"
    path.parent.mkdir(parents=True)
    config = TrainConfig(loader=LoaderConfig(cache=path, batch_size=1), out=path, network=NetworkConfig(width=8))
    torch.manual_seed(1)
    weights = build_network(config.network).state_dict()
    save_checkpoint(
        path, Checkpoint(config=config, fingerprint="", spec=CacheSpec(side=96), results=(), network=weights)
    )
    make_dataset(root / "coco", SynthConfig(images=3))
    (root / "coco" / "train2017").rename(root / "photos")
    (root / "photos" / "no-photo.jpg").write_text("hello")
    return root


@pytest.fixture(scope="module")
def url(folder, start_module_child):
    """The address of the page, which a server of its own shows."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", ROOT / "app.py", "--server.port", port, "--server.headless", 1]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = start_module_child(command, cwd=folder, env=environ, stderr=subprocess.STDOUT, seconds=1800)
    said = []
    for line in server.stdout:
        said.append(line)
        if "URL:" in line:
            break
    assert f"http://localhost:{port}" in "".join(said)
    rest = threading.Thread(target=lambda: said.extend(server.stdout), daemon=True)
    rest.start()
    yield f"http://localhost:{port}"
    server.kill()
    rest.join()
    assert "Traceback" not in "".join(said)


@pytest.fixture(scope="module")
def browser():
    """Chromium, with a camera that films a test picture."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        chromium = playwright.chromium.launch(executable_path=found, args=camera)
        yield chromium
        chromium.close()


@pytest.fixture(params=[False])
def refusals(request):
    """Whether the server may refuse uploads, which browsers name as errors."""
    return request.param


@pytest.fixture
def visit(browser, url, refusals):
    """Open the page as some device; it may ask nobody but its own server, and must have no errors."""
    strangers, errors, contexts = [], [], []

    def open_page(device):
        contexts.append(browser.new_context(**device))
        page = contexts[-1].new_page()
        page.on("request", lambda request: strangers.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    errors = [error for error in errors if not (refusals and "413" in error)]
    assert [each for each in strangers if not each.startswith((url, url.replace("http", "ws"), "data:", "blob:"))] == []
    assert errors == []


def first_line(url, *lines, body=b""):
    """The first line of what the server answers to a request."""
    with socket.create_connection(("localhost", int(url.rpartition(":")[2])), 30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return connection.recv(4096).partition(b"\r\n")[0].decode()


def test_other_websites_reach_neither_the_page_nor_its_stream(url):
    own = url.removeprefix("http://")
    upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {22 * 'A'}==",
    ]
    for host, origin, sound in [
        (own, url, True), (own, "http://localhost:3000", False), ("evil.example", "http://evil.example", False),
    ]:  # fmt: skip
        names = [f"Host: {host}", f"Origin: {origin}"]
        stream = first_line(url, "GET /_stcore/stream HTTP/1.1", *names, *upgrade)
        assert stream.split()[1] == ("101" if sound else "403"), (host, origin)
        health = first_line(url, "GET /_stcore/health HTTP/1.1", *names)
        assert health.split()[1] == ("200" if sound else "403"), (host, origin)


def test_nobody_else_uploads_and_no_file_of_the_machine_is_served(url):
    put = [
        "PUT /_stcore/upload_file/none/any HTTP/1.1",
        "Host: localhost",
        "Content-Type: multipart/form-data; boundary=b",
    ]
    assert first_line(url, *put, "Content-Length: 9").split()[1] == "403", "without the page's cookie"
    for path in ("/../app.py", "/static/%2e%2e/%2e%2e/app.py", "/media/../app.py", "//etc/passwd"):
        assert first_line(url, f"GET {path} HTTP/1.1", "Host: localhost").split()[1] in ("400", "404"), path


def upload(page, *paths):
    # While the server runs the script, widgets are made anew, and files that are given to an old one are lost.
    page.locator("[data-test-script-state=notRunning]").wait_for()
    page.locator(".st-key-photos input[type=file]").set_input_files([*map(str, paths)])
    expect(page.locator(".st-key-download button")).to_be_visible(timeout=30_000)


def download(page, key="download"):
    with page.expect_download() as started:
        page.locator(f".st-key-{key} button").click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def written(folder, out, *options):
    """What `cli.py predict` makes of the photos, by name. Its files have a comment, those of the page have none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = str(folder / "runs" / "first" / "checkpoints" / "best_model.pth")
    arguments = [*map(str, photos(folder)), "--model", model, "--out", str(out), *options]
    assert CliRunner(catch_exceptions=False).invoke(main, ["predict", *arguments]).exit_code == 0
    torch.set_num_threads(before)
    return {path.name: pixels(path.read_bytes()) for path in out.iterdir()}


def pixels(data):
    image = Image.open(io.BytesIO(data))
    return image.mode, image.size, image.tobytes()


@pytest.fixture(scope="module")
def cutouts(folder):
    return written(folder, folder / "cutouts")


def photos(folder):
    return sorted(path for path in (folder / "photos").iterdir() if path.name != "no-photo.jpg")


def narrow_enough(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth && stMain.scrollWidth <= innerWidth")


def test_a_photo_goes_up_its_line_is_moved_and_the_result_comes_down(visit, folder, cutouts, tmp_path):
    page = visit(DESKTOP)
    photo = photos(folder)[0]
    upload(page, photo)
    figure, line = page.locator(".compare"), page.locator(".compare input")
    place = figure.bounding_box()
    middle = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + 0.5 * place["width"], middle)
    page.mouse.down()
    page.mouse.move(place["x"] + 0.2 * place["width"], middle, steps=3)
    page.mouse.up()
    page.mouse.move(place["x"] + 0.9 * place["width"], middle)
    expect(line).to_have_value("20")
    page.keyboard.press("ArrowRight")
    expect(line).to_have_value("21")
    expect(line).to_have_attribute("aria-valuetext", "21 %")
    assert figure.evaluate("figure => figure.style.getPropertyValue('--at')") == "21%"
    assert page.get_by_role("slider", name="How much of the photo").count() == 1

    name, data = download(page)
    result = Image.open(io.BytesIO(data))
    assert (name, result.mode, result.size) == (photo.stem + ".png", "RGBA", Image.open(photo).size)
    assert pixels(data) == cutouts[name]

    after = page.locator(".compare .after")
    before = after.get_attribute("src")
    page.get_by_text("Blur", exact=True).click()
    expect(after).not_to_have_attribute("src", before)
    expect(line).to_have_value("21")  # the line stays where it was
    name, data = download(page)
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert pixels(data) == written(folder, tmp_path / "blurred", "--background", "blur")[name]


def test_two_photos_and_one_that_is_none(visit, folder, cutouts):
    page = visit(DESKTOP)
    upload(page, *photos(folder)[:2], folder / "photos" / "no-photo.jpg")
    expect(page.get_by_text("no-photo.jpg cannot be read: it is not a JPEG")).to_be_visible()
    radios = page.get_by_role("radiogroup", name="Photos").get_by_role("radio")
    expect(radios).to_have_count(2)
    shown = page.locator(".compare .before")
    first = shown.get_attribute("src")
    page.locator(".strip label").nth(1).click()
    expect(shown).not_to_have_attribute("src", first)
    expect(radios.nth(1)).to_be_checked()
    name, _data = download(page)
    assert name == photos(folder)[1].stem + ".png"
    name, data = download(page, "download-all")
    assert name == "maskcache.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: pixels(archive.read(name)) for name in archive.namelist()} == cutouts


@pytest.mark.parametrize("refusals", [True], indirect=True)
def test_of_many_photos_twenty_are_taken_and_that_is_told(visit, folder):
    page = visit(DESKTOP)
    expect(page.locator(".st-key-photos [data-testid=stFileUploaderDropzoneInstructions]")).to_be_visible()
    text = page.locator(".st-key-photos [data-testid=stFileUploaderDropzoneInstructions] span").first
    said = text.evaluate("span => getComputedStyle(span, '::after').content")
    assert said == '"or drop them here, up to 20 of 50 MB each"'
    photo = photos(folder)[0].read_bytes()
    page.locator("[data-test-script-state=notRunning]").wait_for()
    many = [{"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": photo} for number in range(30)]
    page.locator(".st-key-photos input[type=file]").set_input_files(many)
    expect(page.get_by_text("These are more than 20 photos: the first 20 are taken.")).to_be_visible(timeout=30_000)
    expect(page.locator(".strip label")).to_have_count(20, timeout=30_000)
    assert page.locator("[data-testid=stFileChipIconError]").count() == 30 - MOST_FILES
    assert narrow_enough(page)


def test_a_phone_shows_all_of_it_and_takes_a_photo(visit, folder):
    page = visit(PHONE)
    expect(page.locator(".st-key-photos section")).to_be_visible()
    assert narrow_enough(page)
    page.get_by_role("tab").nth(1).click()
    page.locator("video").wait_for()
    page.wait_for_function("document.querySelector('video').videoWidth > 0")
    page.get_by_test_id("stCameraInputButton").click()
    expect(page.locator(".st-key-download button")).to_be_visible(timeout=30_000)
    assert narrow_enough(page)
    page.get_by_role("tab").nth(0).click()
    upload(page, photos(folder)[0])
    expect(page.locator(".strip label")).to_have_count(2, timeout=30_000)  # the camera's photo is still there
    assert narrow_enough(page)
    figure = page.locator(".compare")
    figure.scroll_into_view_if_needed()
    place = figure.bounding_box()
    page.touchscreen.tap(place["x"] + 0.75 * place["width"], place["y"] + 20)
    expect(page.locator(".compare input")).to_have_value(re.compile("7[456]"))
    page.locator(".st-key-settings button:visible").click()
    expect(page.get_by_role("radio", name="Español")).to_be_checked()
    assert narrow_enough(page)
