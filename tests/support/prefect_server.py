"""The tests use the demo's Prefect server, deployments/local_server.py; pytest's `pythonpath` finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_server import (
    LocalPrefectServer,
    ServerDidNotStartError,
    clean_environment,
    prefect_settings,
    talking_to,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "LocalPrefectServer",
    "ServerDidNotStartError",
    "StartedElsewhere",
    "clean_environment",
    "prefect_settings",
    "talking_to",
]


class StartedElsewhere(LocalPrefectServer):
    """A server that another process started and will stop."""

    def __init__(self, home: Path, url: str, settings: Mapping[str, str]) -> None:
        super().__init__(home, settings=settings)
        self._port = int(url.rpartition(":")[2])
