"""Run by its path, in any Python: makes `bench.peers` importable, and nothing else of this project, and runs a child.

A Python of another environment must not find this one's packages, which lie beside `bench` where it is installed.
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
