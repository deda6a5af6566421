"""What the README shows must be so."""

import configparser
import re
from pathlib import Path

import pytest

from cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_command_and_flag_of_the_readme_exists():
    used = re.findall(r"cli\.py +([a-z]+)([^\n#|`]*)", README)
    assert len(used) > 8
    for name, rest in used:
        flags = {option for parameter in main.commands[name].params for option in parameter.opts}
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in flags, f"{name} {flag}"
    assert set(main.commands) <= {name for name, _ in used}


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_every_link_and_picture_is_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_example_runs(tmp_path, monkeypatch):
    from cache.spec import CacheSpec
    from preprocess.build.build import BuildConfig, build_cache
    from preprocess.synth.dataset import SynthConfig, make_dataset

    make_dataset(tmp_path / "coco", SynthConfig(images=24))
    build_cache(BuildConfig(coco=tmp_path / "coco", out=tmp_path / "data" / "cache", spec=CacheSpec(side=64)))
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(example, "README.md", "exec"), found)
    assert found["image"].shape == (16, 3, 64, 64)
    assert found["person"].shape == found["ignore"].shape == (16, 1, 64, 64)
    assert found["state"] == {"epoch": 1, "consumed": 0}


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_targets(command):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command in README
    assert command.split()[1] in targets


@pytest.mark.parametrize("name", ["performance.md", "loaders.md"])
def test_the_tables_of_a_page_are_those_of_its_results(name):
    from bench.report import BenchReport
    from console.html import markdown_tables

    page = (ROOT / "docs" / name).read_text()
    (results,) = re.findall(r"--json (\S+)", page)
    assert page.endswith(markdown_tables(BenchReport.read(ROOT / results)))


def test_each_package_that_is_asked_for_has_its_licence_listed():
    asked = configparser.ConfigParser()
    asked.read(ROOT / "setup.cfg")
    lines = [asked["options"]["install_requires"], *asked["options.extras_require"].values()]
    names = set(re.findall(r"^([A-Za-z][\w.-]*)", "\n".join(lines), re.MULTILINE))
    assert len(names) > 40
    listed = set(re.findall(r"[\w.-]+", (ROOT / "docs/licenses.md").read_text()))
    assert names <= listed, names - listed
