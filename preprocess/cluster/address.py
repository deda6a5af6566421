"""The address of a cluster: that of its scheduler, or a number of processes of this machine."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from preprocess.errors import ClusterError

LOCAL = "local:"

TLS = "tls"


@dataclasses.dataclass(frozen=True)
class ClusterAddress:
    """The value of `--cluster`.

    Attributes:
        text: `tcp://host:8786` or `tls://host:8786`; `local:4` for four processes of this machine.
    """

    text: str

    def __post_init__(self) -> None:
        if self.text.startswith(LOCAL):
            count = self.text.removeprefix(LOCAL)
            known = count.isdecimal() and int(count) > 0
        else:
            known = _is_url(self.text)
        if not known:
            raise ClusterError(
                "--cluster {text!r} is no address; use tcp://HOST:8786, where `dask scheduler` listens, or "
                "local:N for N processes of this machine",
                text=self.text,
            )

    @property
    def local_processes(self) -> int:
        """How many processes of this machine; 0 for a cluster that is there already."""
        return int(self.text.removeprefix(LOCAL)) if self.text.startswith(LOCAL) else 0

    @property
    def encrypted(self) -> bool:
        """Whether Dask needs certificates for it."""
        return self.text.startswith(f"{TLS}://")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme in ("tcp", TLS) and parts.hostname and parts.port)
    except ValueError:  # a port that is none
        return False
