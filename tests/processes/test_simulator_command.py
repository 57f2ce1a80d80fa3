"""`python -m paradime_blocks.testing` in its own process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.processes


LIST = "{ listBoltSchedules(offset: 0, limit: 9, showInactive: false) { schedules { name } } }"


def exported(line: str) -> tuple[str, str]:
    name, _, value = line.removeprefix("export ").strip().partition("=")
    return name, shlex.split(value)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_it_prints_its_address_and_ends_on_a_signal(number: signal.Signals) -> None:
    """A shell can eval the lines; the exit code is 0."""
    command = [sys.executable, "-m", "paradime_blocks.testing", "--speed", "10"]
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            variables = dict(exported(process.stdout.readline()) for _ in range(3))
            response = httpx.post(
                variables["PARADIME_API_ENDPOINT"],
                json={"query": LIST},
                headers={
                    "X-API-KEY": variables["PARADIME_API_KEY"],
                    "X-API-SECRET": variables["PARADIME_API_SECRET"],
                },
                trust_env=False,
            )
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    names = [each["name"] for each in response.json()["data"]["listBoltSchedules"]["schedules"]]
    assert names == ["daily", "hourly", "extract", "orders", "customers", "publish", "failing"]
    assert (process.returncode, errors) == (0, "")
