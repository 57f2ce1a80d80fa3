"""A real Prefect server in its own process, for the demo and for the tests.

The server stores its SQLite database and its log in a given folder, and listens on a free port of the loopback
interface. The server's standard input is a pipe from the process that starts the server. If that process dies, even by
SIGKILL, the pipe closes and the server ends, too. So no server is left running.

`talking_to(server)` makes the flows, blocks and clients of the calling process use the server.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Self

HOST = "127.0.0.1"
# A slow machine needs half a minute to import Prefect's server, and half a minute to create the server's first
# database.
START_TIMEOUT_SECONDS = 300.0
STOP_TIMEOUT_SECONDS = 20.0
START_ATTEMPTS = 3
IN_MEMORY = "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true&check_same_thread=false"


class ServerDidNotStartError(RuntimeError):
    """The Prefect server ended, or did not answer in time. The message contains the end of the server's log."""


class LocalPrefectServer:
    """A Prefect server as a child process. Use it as a context manager, or call `start()` and `stop()`.

    Args:
        home: The folder for the database and the log. The folder becomes the server's PREFECT_HOME.
        ui: Whether the server shows Prefect's user interface.
        in_memory: Whether the SQLite database is in memory, not in a file. If the database is in a file, the server
            has several connections, and their writes collide. The server then answers 503, and the client waits two
            seconds or more (measured: 12 small flows took 23 s with a file, and 3 s in memory).
        settings: Other Prefect settings for the server, as environment variables.
        port: The port of the server if no other process uses it, or else a free port; None for a free port.
        start_timeout_seconds: How long `start` waits until the server answers, in seconds.
    """

    def __init__(
        self,
        home: Path,
        *,
        ui: bool = False,
        in_memory: bool = False,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        start_timeout_seconds: float = START_TIMEOUT_SECONDS,
    ) -> None:
        self.home = home.resolve()
        self.log_path = self.home / "server.log"
        self._ui = ui
        self.settings = ({"PREFECT_SERVER_DATABASE_CONNECTION_URL": IN_MEMORY} if in_memory else {}) | dict(
            settings or {}
        )
        self._start_timeout_seconds = start_timeout_seconds
        self._wanted_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self._port is None:
            raise RuntimeError("The Prefect server has not been started: call start() first.")
        return f"http://{HOST}:{self._port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def ui_url(self) -> str:
        return self.url

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def client_settings(self) -> dict[str, str]:
        """The environment variables that make a Prefect client use this server and no other server."""
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_URL": self.ui_url,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "DO_NOT_TRACK": "1",
        }

    @property
    def env(self) -> dict[str, str]:
        """All environment variables for a subprocess that uses this server."""
        return clean_environment() | self.client_settings

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers. If another process has taken the port, try another port."""
        self.home.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = _free_port(self._wanted_port or 0)
            self._process = self._launch(self._port)
            try:
                self._wait_until_healthy()
            except BaseException as error:
                self.stop()
                retry = isinstance(error, ServerDidNotStartError) and self._port_was_taken()
                if not retry or attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """End the server with SIGTERM. If the server has not ended after some time, kill it with SIGKILL."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def post(self, path: str, body: object = None) -> Any:
        """Send a request to the server's API, and return its answer."""
        return _get_json(f"{self.api_url}/{path}", json.dumps(body or {}).encode())

    def log_tail(self, lines: int = 30) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        env = clean_environment() | {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": str(self._ui).lower(),
            # The pages of Prefect's UI send their requests to this address. By default, they use port 4200.
            "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            "DO_NOT_TRACK": "1",
            **self.settings,
        }
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), str(port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Prefect reads `.env` and `prefect.toml` in the working directory. The server should not read the
                # caller's files.
                cwd=self.home,
                env=env,
                # In a session of its own, the server does not receive Ctrl-C from the terminal. The caller stops the
                # server.
                start_new_session=True,
            )

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + self._start_timeout_seconds
        while not self._answers():
            process = self._process
            if process is None or process.poll() is not None:
                code = None if process is None else process.returncode
                raise ServerDidNotStartError(
                    f"The Prefect server ended with code {code} before it answered. The end of the server's log, "
                    f"{self.log_path}:\n{self.log_tail()}"
                )
            if time.monotonic() >= deadline:
                raise ServerDidNotStartError(
                    f"The Prefect server did not answer within {self._start_timeout_seconds:g} s. The end of "
                    f"the server's log, {self.log_path}:\n{self.log_tail()}"
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether our server answers on the port: the answer must contain the folder that we gave to our server."""
        try:
            return (
                _get_json(f"{self.api_url}/health") is True
                and Path(_get_json(f"{self.api_url}/admin/settings")["home"]) == self.home
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _port_was_taken(self) -> bool:
        text = self.log_path.read_text(errors="replace").lower()
        return "address already in use" in text or "already in use" in text


@contextmanager
def prefect_settings(settings: Mapping[str, str]) -> Iterator[None]:
    """Apply Prefect settings to this process, its threads and its subprocesses. All other settings have defaults.

    Prefect's `temporary_settings` sets a context variable, which a new thread does not see. All threads and
    subprocesses see the environment and the global settings context, even after Prefect has been imported.
    """
    from prefect.context import refresh_global_settings_context

    before = {name: value for name, value in os.environ.items() if _is_prefects(name)}
    _replace_environment(settings)
    refresh_global_settings_context()
    try:
        yield
    finally:
        _replace_environment(before)
        refresh_global_settings_context()


@contextmanager
def talking_to(server: LocalPrefectServer) -> Iterator[LocalPrefectServer]:
    """Make the flows, blocks and clients of this process use a server during the `with` block."""
    with prefect_settings(server.client_settings):
        try:
            yield server
        finally:
            _send_what_is_queued()


def _send_what_is_queued() -> None:
    """Let Prefect send its last log lines and events. If the server ended first, Prefect would log errors at exit."""
    from prefect.events.worker import EventsWorker

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()
    EventsWorker.drain_all(timeout=10)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without Prefect's settings, so that the user's own server is not used."""
    return {name: value for name, value in os.environ.items() if not _is_prefects(name)}


def _is_prefects(name: str) -> bool:
    return name.startswith("PREFECT_") or name == "DO_NOT_TRACK"


def _replace_environment(settings: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if _is_prefects(name)]:
        del os.environ[name]
    os.environ.update(settings)


def _free_port(wanted: int) -> int:
    """Return the wanted port if it is free, or else another port."""
    with socket.socket() as probe:
        # A port on which nobody listens is free, even if connections of an earlier server are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError:
            return _free_port(0)
        port: int = probe.getsockname()[1]
        return port


def _get_json(url: str, body: bytes | None = None) -> Any:
    # A proxy that the environment configures cannot reach our loopback interface.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - http
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def _end_with_parent() -> None:
    """Wait until the parent process closes the pipe to our standard input or dies. Then end this process."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_TIMEOUT_SECONDS)
    os._exit(1)


def main(port: str) -> None:
    """Run Prefect's command `prefect server start` in this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Python puts the folder of this script first on the path. Prefect should not import modules from this folder.
    sys.path.pop(0)
    sys.argv = ["prefect", "server", "start", "--host", HOST, "--port", port]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
