"""A pytest plugin: one Prefect server for a whole test run, also when xdist runs the tests in several processes.

With xdist, the controller process starts the server once it knows that a test needs it, and writes its address to a
folder that all processes know. Tests without a server run in the meantime. Without xdist, the first test that needs the
server starts it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.prefect_server import LocalPrefectServer

_FOLDER = "prefect_server_folder"
# The start has its own time limits and reports its own failure.
_START_SECONDS = 1000.0


class SharedServer:
    """The server as seen by the controller process.

    Args:
        folder: For the server, and for the messages to the other processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starting: threading.Thread | None = None
        self._server: LocalPrefectServer | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[_FOLDER] = str(self.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Any) -> None:
        """Start the server in the background if a selected test needs it."""
        if self._starting is None and _wanted(self.folder).exists():
            self._starting = threading.Thread(target=self._start)
            self._starting.start()

    def _start(self) -> None:
        from support.prefect_server import LocalPrefectServer

        server = LocalPrefectServer(self.folder / "home", ui=True, in_memory=True)
        try:
            server.start()
        except Exception as error:  # noqa: BLE001 - reported to the tests that wait for it
            message = {"error": str(error)}
        else:
            self._server = server
            message = {"home": str(server.home), "url": server.url}
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps(message), encoding="utf-8")
        draft.rename(_address(self.folder))

    def pytest_unconfigure(self) -> None:
        if self._starting is not None:
            self._starting.join()
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="prefect-paradime-server-"))
        config.pluginmanager.register(SharedServer(folder), "shared-server")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Announce that a server is needed, before xdist reports that the tests are collected."""
    given = getattr(session.config, "workerinput", {})
    if _FOLDER in given and any("prefect_server" in item.fixturenames for item in session.items):
        _wanted(Path(given[_FOLDER])).touch()


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest) -> Iterator[LocalPrefectServer]:
    """The shared Prefect server; this process's flows use it."""
    from support.prefect_server import LocalPrefectServer, StartedElsewhere, talking_to

    given = getattr(request.config, "workerinput", None)
    if given is None:
        folder = request.config.pluginmanager.get_plugin("shared-server").folder
        with LocalPrefectServer(folder / "home", ui=True, in_memory=True) as server, talking_to(server):
            yield server
        return
    message = _read_message(Path(given[_FOLDER]))
    with talking_to(StartedElsewhere(Path(message["home"]), message["url"])) as server:
        yield server


def _read_message(folder: Path) -> dict[str, str]:
    """Wait for the server's address."""
    assert _wanted(folder).exists(), (
        "Request the fixture `prefect_server` by name: its name starts the server."
    )
    wait_until(_address(folder).exists, "the Prefect server's address", within=_START_SECONDS)
    message: dict[str, str] = json.loads(_address(folder).read_text(encoding="utf-8"))
    if "error" in message:
        pytest.fail(message["error"], pytrace=False)
    return message


def _wanted(folder: Path) -> Path:
    return folder / "wanted"


def _address(folder: Path) -> Path:
    return folder / "address.json"
