"""Connect to a Dask cluster, a running one or processes of this machine, and compare its versions with this process's.

All shards of a cache are alike only if the client and every worker run the same versions.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cache.machine import processors
from cache.messages import install, joined, message
from cache.spec import FORMAT_VERSION
from preprocess.build.commit import TOOLS
from preprocess.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""

WORKER_SECONDS = 60
"""How long a cluster may be without a worker."""

_LEAN = {
    # The profiler would look at each thread a hundred times a second.
    "distributed.worker.profile.enabled": False,
    # This leaves out Dask's own variables, by which the allocator would give the memory of each photo back to the
    # system: everything would take a third more time.
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1"},
}
"""Settings of Dask for processes that only make shards."""

_INSTALL = message("install it there: {install}", install=install("cluster"))


@dataclasses.dataclass(frozen=True)
class ClusterAddress:
    """The value of `--cluster`: `tcp://host:8786`, `tls://host:8786`, or `local:4` for 4 processes of this machine."""

    text: str

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.text)
            valid = self.local_processes or (url.scheme in ("tcp", "tls") and url.hostname and url.port)
        except ValueError:  # the port is no number
            valid = False
        if not valid:
            raise ClusterError(
                "--cluster {text!r} is no address; use tcp://HOST:8786, where `dask scheduler` listens, or "
                "local:N for N processes of this machine",
                text=self.text,
            )

    @property
    def local_processes(self) -> int:
        """How many processes of this machine; 0 for a cluster that is there already."""
        kind, _, number = self.text.partition(":")
        return int(number) if kind == "local" and number.isdecimal() else 0


@contextmanager
def open_client(address: ClusterAddress) -> Iterator[Client]:
    """A client of a cluster that has at least one worker, and all of whose workers have this process's versions.

    Raises `ClusterError`: `distributed`, the scheduler or a worker is missing, or a worker has other versions.
    """
    try:
        from distributed.utils import silence_logging_cmgr
    except ModuleNotFoundError:
        raise ClusterError("--cluster needs Dask: {install}", install=install("cluster")) from None
    # Dask logs lost workers and connections, which it either replaces or reports as errors, handled below.
    processes = address.local_processes
    with (
        silence_logging_cmgr(logging.CRITICAL + 1),
        _local_cluster(processes) if processes else _remote_cluster(address) as client,
    ):
        yield client


@contextmanager
def _remote_cluster(address: ClusterAddress) -> Iterator[Client]:
    from distributed import Client, Security

    if address.text.startswith("tls://") and not Security().get_connection_args("client").get("ssl_context"):
        raise ClusterError(
            "{text} needs certificates; name them in Dask's configuration (distributed.comm.tls), or use tcp://",
            text=address.text,
        )
    try:
        client = Client(address.text, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            "no scheduler answers at {text} ({error}); start one with `dask scheduler`, and workers with "
            "`dask worker ADDRESS`",
            text=address.text,
            error=error,
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError:
            raise no_worker(address) from None
        check_workers(client)
        yield client


@contextmanager
def _local_cluster(processes: int) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster, Worker, WorkerPlugin

    class IgnoreInterrupt(WorkerPlugin):
        """Let workers ignore Ctrl-C, which reaches all processes of a terminal: only the client reacts to it."""

        name = "ignore-interrupt"

        def setup(self, worker: Worker) -> None:
            # Called in the main thread of each worker's process, including those that replace a lost one.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    with dask.config.set(_LEAN):
        try:
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=max(1, processors() // processes),
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # no limit: what fits in memory without Dask also fits with it
                silence_logs=logging.CRITICAL + 1,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                "the {processes} processes of local:{processes} do not start ({error}); give it fewer, or leave "
                '--cluster out; a script that calls build_cache has to do so under `if __name__ == "__main__":`',
                processes=processes,
                error=error,
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            client.register_plugin(IgnoreInterrupt())
            yield client


def no_worker(address: ClusterAddress) -> ClusterError:
    """The error for a cluster without a worker."""
    return ClusterError(
        "{text} has had no worker for {seconds} s; start some with `dask worker {text}`, then run "
        "it again: finished shards are kept",
        text=address.text,
        seconds=WORKER_SECONDS,
    )


def check_workers(client: Client) -> None:
    """Compare versions with all present workers; later ones are checked with each task.

    Raises `ClusterError`: a worker differs, or maskcache is missing on it or on the scheduler, through which tasks go.
    """
    here = environment()
    try:
        client.run_on_scheduler(environment)
    except Exception as error:
        values = {"error": error, "install": _INSTALL}
        raise ClusterError("the scheduler cannot run maskcache ({error}); {install}", **values) from None
    for worker, there in client.run(environment, on_error="return").items():
        if isinstance(there, Exception):
            values = {"worker": worker, "there": there, "install": _INSTALL}
            raise ClusterError("worker {worker} cannot run maskcache ({there}); {install}", **values)
        check_environment(here, worker, there)


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """The versions of the calling process, by the name of what has the version."""
    python = ".".join(platform.python_version_tuple()[:2])
    versions = {message("the cache format"): str(FORMAT_VERSION), "Python": python}
    for name in ("maskcache", *TOOLS):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = message("not installed")
    return versions


def check_environment(here: dict[str, str], worker: str, there: dict[str, str]) -> None:
    """Compare the client's versions with a worker's.

    Raises `ClusterError`: they differ; the message names all that do.
    """
    names = sorted({*here, *there}, key=str.lower)
    versions = [(name, there.get(name, "missing"), here.get(name, "missing")) for name in names]
    differences = [
        message("{name} is {there}, here {here}", name=name, there=theirs, here=ours)
        for name, theirs, ours in versions
        if theirs != ours
    ]
    if differences:
        raise ClusterError(
            "worker {worker} runs other versions: {differences}; install the same maskcache there, with the same "
            "constraints.txt, and start the worker again",
            worker=worker,
            differences=joined("; ", differences),
        )
