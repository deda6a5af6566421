"""The address of a cluster: its scheduler's, or a number of processes of this machine."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from preprocess.errors import ClusterError


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

    @property
    def encrypted(self) -> bool:
        """Whether Dask needs certificates for it."""
        return self.text.startswith("tls://")
