"""The tests' Prefect server is the demo's, deployments/local_server.py; pytest's `pythonpath` finds it."""

from __future__ import annotations

from local_server import (
    LocalPrefectServer,
    ServerDidNotStartError,
    clean_environment,
    prefect_settings,
    talking_to,
)

__all__ = [
    "LocalPrefectServer",
    "ServerDidNotStartError",
    "clean_environment",
    "prefect_settings",
    "talking_to",
]
