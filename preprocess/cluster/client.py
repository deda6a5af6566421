"""The versions that must be the same on the client and on every worker, so that all shards of a cache are alike.

A connection to a Dask cluster: a running one, or a temporary one of processes of this machine.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from cache.messages import joined, message
from cache.spec import FORMAT_VERSION
from preprocess.build.commit import TOOLS
from preprocess.cluster.address import LOCAL, ClusterAddress
from preprocess.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """The versions of the calling process, by what they are of."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        message("the cache format"): str(FORMAT_VERSION),
        "Python": python,
        **{name: _version(name) for name in ("maskcache", *TOOLS)},
    }


def check_environment(here: dict[str, str], worker: str, there: dict[str, str]) -> None:
    """Compare the client's versions with a worker's.

    Raises:
        ClusterError: they differ; the message names all that do.
    """
    names = sorted({*here, *there}, key=str.lower)
    wrong = [
        message(
            "{name} is {there}, here {here}",
            name=name,
            there=there.get(name, "missing"),
            here=here.get(name, "missing"),
        )
        for name in names
        if here.get(name) != there.get(name)
    ]
    if wrong:
        raise ClusterError(
            "worker {worker} runs other versions: {wrong}; install the same maskcache there, with the same "
            "constraints.txt, and start the worker again",
            worker=worker,
            wrong=joined("; ", wrong),
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return message("not installed")


CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""

WORKER_SECONDS = 60
"""How long a cluster may be without a worker."""

_LEAN = {
    # The profiler would look a hundred times a second at what each thread is doing.
    "distributed.worker.profile.enabled": False,
    # Without Dask's own variables, by which the allocator would give the memory of each photo back to the system: a
    # third more time for everything.
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1"},
}
"""Defaults of Dask that are switched off in processes that only make shards."""


@contextmanager
def open_client(address: ClusterAddress) -> Iterator[Client]:
    """A client of a cluster that has at least one worker, all of them like this process.

    Raises:
        ClusterError: no `distributed`, no scheduler, no worker, or one of other versions.
    """
    try:
        from distributed.utils import silence_logging_cmgr
    except ModuleNotFoundError:
        raise ClusterError("--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]'") from None
    # What Dask logs of a lost worker or connection is either mended or becomes an error here.
    processes = address.local_processes
    with (
        silence_logging_cmgr(logging.CRITICAL + 1),
        _local_cluster(processes) if processes else _remote_cluster(address) as client,
    ):
        yield client


@contextmanager
def _remote_cluster(address: ClusterAddress) -> Iterator[Client]:
    from distributed import Client, Security

    if address.encrypted and not Security().get_connection_args("client").get("ssl_context"):
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
        """Ctrl-C in a terminal reaches all its processes, of which only the client may react."""

        name = "ignore-interrupt"

        def setup(self, worker: Worker) -> None:
            """Called in the main thread of each worker's process, including those that replace a lost one."""
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    with dask.config.set(_LEAN):
        try:
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=max(1, (os.cpu_count() or 1) // processes),
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # what fits without Dask fits with it
                silence_logs=logging.CRITICAL + 1,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                "the {processes} processes of {local}{processes} do not start ({error}); give it fewer, or leave "
                '--cluster out; a script that calls build_cache has to do so under `if __name__ == "__main__":`',
                processes=processes,
                local=LOCAL,
                error=error,
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            client.register_plugin(IgnoreInterrupt())
            yield client


def no_worker(address: ClusterAddress) -> ClusterError:
    """The error for a cluster without a worker."""
    return ClusterError(
        "{text} has had no worker for {worker_seconds} s; start some with `dask worker {text}`, then run "
        "it again: finished shards are kept",
        text=address.text,
        worker_seconds=WORKER_SECONDS,
    )


_INSTALL = message("install it there: pip install -c constraints.txt -e '.[cluster]'")


def check_workers(client: Client) -> None:
    """Compare versions with all present workers; later ones are checked with each task.

    Raises:
        ClusterError: one differs, or it or the scheduler, through which tasks go, has no maskcache.
    """
    here = environment()
    try:
        client.run_on_scheduler(environment)
    except Exception as error:
        raise ClusterError(
            "the scheduler cannot run maskcache ({error}); {install}", error=error, install=_INSTALL
        ) from None
    for worker, there in client.run(environment, on_error="return").items():
        if isinstance(there, Exception):
            raise ClusterError(
                "worker {worker} cannot run maskcache ({there}); {install}",
                worker=worker,
                there=there,
                install=_INSTALL,
            )
        check_environment(here, worker, there)
