"""Every snippet of the READMEs runs unchanged."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from prefect.client.orchestration import get_client
from support.prefect_server import prefect_settings

from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.samples import add_samples

if TYPE_CHECKING:
    from local_server import LocalPrefectServer

ROOT = Path(__file__).resolve().parents[2]
SHOWN_ONLY = re.compile(r"<!-- shown only: .+ -->\s*\Z")


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a README to run."""

    line: int
    language: str
    text: str


def snippets(readme: Path) -> list[Snippet]:
    """Return the blocks of a README, without those that a comment marks as shown only."""
    text = readme.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(python|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()]
        if not SHOWN_ONLY.search(before):
            found.append(Snippet(before.count("\n") + 1, match[1], match[2]))
    return found


@pytest.mark.parametrize("shell", [False, pytest.param(True, marks=pytest.mark.full)], ids=["", "in a shell"])
def test_the_readme_can_be_followed_from_top_to_bottom(
    prefect_server: LocalPrefectServer,
    bolts_deployment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: bool,
) -> None:
    """Every block runs in the order of the page, with the samples of the simulator; blocks with tests run under pytest.

    Prefect's commands are slow to start, so they run in this process; the longer run uses a shell.
    """
    blocks = snippets(ROOT / "README.md")
    assert {block.language for block in blocks} == {"python", "bash"}
    # Its own profile for the commands that change it; the environment names the server.
    settings = {**prefect_server.client_settings, "PREFECT_HOME": str(tmp_path / "prefect")}
    with BoltSimulator(speed=100) as simulator, prefect_settings(settings):
        add_samples(simulator)
        for name, value in simulator.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(ROOT)
        for block in blocks:
            if block.language == "bash" and not shell:
                _run_commands_here(block)
            else:
                _run(block, tmp_path)


@pytest.mark.full
def test_the_commands_of_the_page_on_deployments_run(
    prefect_server: LocalPrefectServer, bolts_deployment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They make the work pool, the deployments and the queue that goes first, and can be repeated."""
    monkeypatch.chdir(ROOT)
    blocks = snippets(ROOT / "deployments" / "README.md")
    assert len(blocks) == 1
    for _ in range(2):
        _run_commands_here(blocks[0])
    with get_client(sync_client=True) as client:
        queues = client.request("POST", "/work_pools/bolt/queues/filter", json={}).json()
        webhook = client.read_deployment_by_name("report-run/webhook")
        (found,) = client.request("GET", f"/automations/related-to/prefect.deployment.{webhook.id}").json()
    assert {queue["name"]: queue["priority"] for queue in queues} == {"urgent": 1, "default": 2}
    # `prefect deploy` fills in templates of its own, and has left this one to the automation.
    template = found["actions"][0]["parameters"]["command_ids"]["value"]["template"]
    assert template == "{{ event.payload.command_ids | tojson }}"


def _run_commands_here(block: Snippet) -> None:
    for line in block.text.splitlines():
        command = shlex.split(line, comments=True)
        printed = io.StringIO()
        with (
            mock.patch.object(sys, "argv", command),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            pytest.raises(SystemExit) as end,
        ):
            runpy.run_module(command[0], run_name="__main__")
        assert end.value.code in {None, 0}, f"README.md, line {block.line}: {line}\n{printed.getvalue()}"


@pytest.mark.full
def test_the_simulators_readme_can_be_followed_from_top_to_bottom(tmp_path: Path) -> None:
    """It says that only the package is needed."""
    readme = ROOT / "paradime_blocks" / "testing" / "README.md"
    blocks = snippets(readme)
    assert len(blocks) > 5
    for block in blocks:
        _run(block, tmp_path, readme.name)


def test_every_code_block_is_run_or_marked_as_shown_only() -> None:
    """Otherwise a block in an unknown language would not be run."""
    there_are = {
        "README.md": "bash",
        "paradime_blocks/testing/README.md": "bash",
        "flows/README.md": "yaml json bash",
        "deployments/README.md": "bash nginx",
    }
    for readme, languages in there_are.items():
        fences = re.findall(r"^```(.*)$", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(fences) - {"python"} == {"", *languages.split()}, readme


def _run(block: Snippet, folder: Path, page: str = "README.md") -> None:
    where = f"{page}, line {block.line}"
    if block.language == "bash":
        done = subprocess.run(["bash", "-e", "-c", block.text], capture_output=True, text=True, check=False)  # noqa: S607
    elif block.text.startswith("pytest_plugins"):
        (folder / "conftest.py").write_text(block.text, encoding="utf-8")
        return
    elif "def test_" in block.text:
        path = folder / f"test_line_{block.line}.py"
        path.write_text(block.text, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            str(path),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    else:
        exec(compile(block.text, where, "exec"), {"__name__": f"readme_{block.line}"})  # noqa: S102
        return
    assert done.returncode == 0, f"{where}:\n{done.stdout}\n{done.stderr}"
