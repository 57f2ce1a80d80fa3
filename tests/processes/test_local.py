"""`make up` and `make down`: from a clone to a flow run that succeeds, with one command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support.prefect_server import clean_environment
from support.processes import Processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
LOCAL, README = ROOT / "deployments" / "local.py", ROOT / "README.md"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Processes]:
    """Starts the program as `make up` does, with a folder and a server of its own."""
    started = Processes(tmp_path, clean_environment() | {"PARADIME_LOCAL_FOLDER": str(tmp_path / "local")})
    yield started
    started.script(LOCAL, "down").wait()
    started.stop_all()


@pytest.mark.full
def test_a_flow_can_be_started_after_make_up_and_nothing_is_left_after_make_down(
    tmp_path: Path, here: Processes
) -> None:
    """The printed command starts a flow run, which succeeds; `up` can be repeated; `down` ends every process."""
    up = here.script(LOCAL, "up")
    assert up.wait() == 0, up.output
    found = re.search(r"(http://\S+)/deployments/deployment/(\S+)", up.output)
    command = re.search(r"PREFECT_API_URL=.*", up.output)
    assert found, up.output
    assert command, up.output
    # A person's shell does not know the programs of the clone's environment.
    shell = {"PATH": os.defpath, "HOME": str(tmp_path)}
    subprocess.run(command[0], shell=True, env=shell, cwd=tmp_path, check=True)  # noqa: S602 - our own text
    # A script uses the same server and the same Bolt after one line in the shell.
    environment = re.search(r"In your shell: +(\. \S+)", up.output)
    assert environment, up.output
    (example,) = re.findall(r"^```python\n([^`]*\"failing\"[^`]*)^```$", README.read_text(), re.MULTILINE)
    (tmp_path / "errors.py").write_text(example, encoding="utf-8")
    script = f"{environment[1]}\n{shlex.quote(sys.executable)} errors.py"
    printed = subprocess.run(  # noqa: S602 - our own text
        script, shell=True, env=shell, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "dbt build 1 https://" in printed
    with httpx.Client(base_url=f"{found[1]}/api", timeout=60, trust_env=False) as client:
        assert client.get("/deployments/name/run-schedule/bolt").json()["id"] == found[2]
        of_deployment = {"deployments": {"id": {"any_": [found[2]]}}}
        (created,) = client.post("/flow_runs/filter", json=of_deployment).json()
        assert created["parameters"]["schedule_name"] == "daily"

        def state() -> str:
            return str(client.get(f"/flow_runs/{created['id']}").json()["state"]["type"])

        wait_until(lambda: state() in {"COMPLETED", "FAILED", "CRASHED"}, "the end of the flow run")
        assert state() == "COMPLETED"
    again = here.script(LOCAL, "up")
    assert again.wait() == 0
    assert "running already" in again.output
    down = here.script(LOCAL, "down")
    assert down.wait() == 0, down.output
    assert "Paradime" not in down.output
    assert here.survivors() == [], [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in here.survivors()]


@pytest.mark.full
def test_make_up_says_which_part_did_not_start(tmp_path: Path, here: Processes) -> None:
    """The end of the log is in the message, and nothing is left running."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "prefect").write_text(
        "a file in the place of the server's folder", encoding="utf-8"
    )
    up = here.script(LOCAL, "up")
    assert up.wait() == 1
    assert "The start failed" in up.output
    assert "prefect" in up.output
    assert here.survivors() == []
