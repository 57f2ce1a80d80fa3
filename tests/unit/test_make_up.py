"""What `make up` and `make down` say, for the simulator and for the real service."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import local
import pytest

if TYPE_CHECKING:
    from pathlib import Path

UI = "http://127.0.0.1:4200"


def test_the_simulated_schedules_are_named_with_their_ends() -> None:
    """Without that, a person believes to have broken the one that fails."""
    text = local.how_to_start(UI, "an-id", simulated=True)
    assert "`publish` succeed; `failing` fails (on purpose" in text
    assert f"{UI}/deployments/deployment/an-id " in text
    assert "schedule_name=daily" in text


def test_the_real_service_has_schedules_of_its_own() -> None:
    text = local.how_to_start(UI, "an-id", simulated=False)
    assert "daily" not in text
    assert "those of your workspace" in text


def test_the_command_runs_a_program_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be pasted as it is, even if the folder's name has a space."""
    monkeypatch.setattr("sys.executable", "/my clone/.venv/bin/python")
    (line,) = [
        line for line in local.how_to_start(UI, "an-id", simulated=True).splitlines() if "Or type" in line
    ]
    words = shlex.split(line.partition("type:")[2])
    assert words[:2] == [f"PREFECT_API_URL={UI}/api", "/my clone/.venv/bin/prefect"]
    assert words[-2:] == ["--param", "schedule_name=daily"]


def _stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PID", folder / "pid")
    pids = iter([7, None])
    monkeypatch.setattr(local, "_pid", lambda: next(pids))
    monkeypatch.setattr("os.kill", lambda pid, signal: None)
    local.down()


@pytest.mark.parametrize("simulated", [True, False])
def test_down_speaks_of_paradime_only_if_it_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulated: bool
) -> None:
    """The simulator's runs end with it."""
    ready = tmp_path / "ready.json"
    content = {"ui": UI, "deployment": "an-id", "simulated": simulated}
    ready.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(local, "READY", ready)
    _stop(tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert ("still running in Paradime" in said) is not simulated


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{}", '{"ui": "http://x", "flow": "1", "simulated": true}', "\udcff"],
    ids=repr,
)
def test_a_file_of_another_version_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """After an update of the clone, `up` says what to do, and `down` stops everything."""
    ready = tmp_path / "ready.json"
    if content is not None:
        ready.write_text(content, encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr(local, "READY", ready)
    monkeypatch.setattr(local, "FOLDER", tmp_path)
    monkeypatch.setattr(local, "_pid", lambda: 7)
    with pytest.raises(local.LocalError, match="run `make down`, and `make up` again"):
        local.up()
    _stop(tmp_path, monkeypatch)
    assert "Stopped." in capsys.readouterr().out
