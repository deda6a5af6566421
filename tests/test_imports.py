"""How the modules import each other: one way, without circles, and importing calls nothing."""

import ast
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def modules():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = {name.strip().partition(".")[0] for name in setup["options"]["packages"].split(",")}
    paths = [ROOT / "cli.py", ROOT / "app.py", *(path for name in packages for path in (ROOT / name).rglob("*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for path, name in names.items()}


@pytest.fixture(scope="module")
def trees():
    return modules()


@pytest.fixture(scope="module")
def imports(trees):
    """Of each module the modules of the project that it imports, wherever in it; a package's face is left out."""
    found = {}
    for name, tree in trees.items():
        wanted = found[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        wanted &= trees.keys()
    packages = {name for name in trees if any(other.startswith(f"{name}.") for other in trees)}
    return {name: wanted - packages for name, wanted in found.items() if name not in packages}


def test_there_is_no_circle(imports):
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_preprocessing_needs_no_drawn_datasets_and_no_torch(trees, imports):
    open_ones, reached = ["commands.preprocess"], set()
    while open_ones:
        name = open_ones.pop()
        if name not in reached:
            reached.add(name)
            open_ones += imports.get(name, ())
    assert "preprocess.raster" in reached
    assert not [name for name in reached if name.startswith(("preprocess.synth", "model", "train", "loader"))]


def test_importing_calls_nothing(trees):
    """Statements of a module bind names; a call alone would change something elsewhere."""
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in trees.items()
        if name != "app"  # the script of a page, which Streamlit runs
        for node in tree.body
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ]
    assert not calls
