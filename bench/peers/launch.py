"""Runs `bench.peers.child` in any Python, which finds `bench.peers` and nothing else of this project.

It is run by its path. A Python of another environment must not find the packages of this one, which lie beside `bench`
where it is installed.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    peers = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != peers]  # its modules are in a package
    for name, folder in (("bench", peers.parent), ("bench.peers", peers)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    importlib.import_module("bench.peers.child").main()
