"""A pytest plugin: one Prefect server for a whole test run, also when xdist runs the tests in several processes.

With xdist, the controller process starts the server once it knows that a test needs it, and writes its address to a
folder that all processes know. Tests without a server run in the meantime. Without xdist, the first test that needs the
server starts it.

With `--database postgresql`, the server stores its data in a real PostgreSQL (`support.postgres`), and not in SQLite.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import postgres
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
        database: The server's database.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self._database = database
        self._starting: threading.Thread | None = None
        self._running = ExitStack()

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
        try:
            server = self._running.enter_context(self.server())
        except Exception as error:  # noqa: BLE001 - reported to the tests that wait for it
            message = {"error": str(error)}
        else:
            message = {"home": str(server.home), "url": server.url, "settings": server.settings}
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps(message), encoding="utf-8")
        draft.rename(_address(self.folder))

    @contextmanager
    def server(self) -> Iterator[LocalPrefectServer]:
        """Run the server during the `with` block."""
        from support.prefect_server import LocalPrefectServer

        home = self.folder / "home"
        if self._database == "sqlite":
            with LocalPrefectServer(home, ui=True, in_memory=True) as server:
                yield server
        else:
            with (
                postgres.Postgres() as database,
                LocalPrefectServer(home, ui=True, settings=database.prefect_settings) as server,
            ):
                yield server

    def pytest_unconfigure(self) -> None:
        if self._starting is not None:
            self._starting.join()
        self._running.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="the database of Prefect's server",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        folder = Path(tempfile.mkdtemp(prefix="prefect-paradime-server-"))
        config.pluginmanager.register(SharedServer(folder, config.getoption("database")), "shared-server")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Announce that a server is needed, before xdist reports that the tests are collected."""
    given = getattr(session.config, "workerinput", {})
    if (
        _FOLDER in given
        and not _is_missing(session.config)
        and any("prefect_server" in item.fixturenames for item in session.items)
    ):
        _wanted(Path(given[_FOLDER])).touch()


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest) -> Iterator[LocalPrefectServer]:
    """The shared Prefect server; this process's flows use it."""
    from support.prefect_server import StartedElsewhere, talking_to

    if _is_missing(request.config):
        pytest.skip(postgres.MISSING)
    given = getattr(request.config, "workerinput", None)
    if given is None:
        shared = request.config.pluginmanager.get_plugin("shared-server")
        with shared.server() as server, talking_to(server):
            yield server
        return
    message = _read_message(Path(given[_FOLDER]))
    with talking_to(StartedElsewhere(Path(message["home"]), message["url"], message["settings"])) as server:
        yield server


def _is_missing(config: pytest.Config) -> bool:
    return config.getoption("database") == "postgresql" and postgres.binaries() is None


def _read_message(folder: Path) -> dict[str, Any]:
    """Wait for the server's address."""
    assert _wanted(folder).exists(), (
        "Request the fixture `prefect_server` by name: its name starts the server."
    )
    wait_until(_address(folder).exists, "the Prefect server's address", within=_START_SECONDS)
    message: dict[str, Any] = json.loads(_address(folder).read_text(encoding="utf-8"))
    if "error" in message:
        pytest.fail(message["error"], pytrace=False)
    return message


def _wanted(folder: Path) -> Path:
    return folder / "wanted"


def _address(folder: Path) -> Path:
    return folder / "address.json"
