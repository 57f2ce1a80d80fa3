"""The base of every test: no settings of the user's, and the shared Prefect server for tests that ask for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized
    from types import FrameType

    from support.bench import Bench
    from support.prefect_server import LocalPrefectServer
    from support.processes import Processes

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

# Set before Prefect is imported, which reads them: the user's own Prefect and Bolt must not affect a test. A test
# that needs a server requests `prefect_server`; Prefect must not start a slow one on its own.
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "PARADIME_"))]:
    del os.environ[_name]
_HOME = Path(tempfile.mkdtemp(prefix="prefect-paradime-tests-"))
os.environ.update(
    {
        "PREFECT_HOME": str(_HOME),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
        # Each Prefect client loads all its certificates again; the tests' servers use http and need none.
        "SSL_CERT_FILE": str(_HOME / "one-certificate.pem"),
    }
)
(_HOME / "one-certificate.pem").write_text(
    Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")[0]
    + "-----END CERTIFICATE-----\n",
    encoding="utf-8",
)

# The same examples each time, so that a failure can be repeated. HYPOTHESIS_PROFILE=nightly has ten times as many;
# HYPOTHESIS_PROFILE=default tries other examples.
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=30)
settings.register_profile("nightly", settings.get_profile("steady"), max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

pytest_plugins = [
    "paradime_blocks.testing.plugin",
    "support.layers",
    "support.shared_server",
    "support.limits",
]


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end a test run as Ctrl-C does: fixtures are torn down, and their processes end."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    config.add_cleanup(lambda: signal.signal(signal.SIGTERM, previous))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A background script ignores SIGINT, and the processes started here would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.add_cleanup(lambda: shutil.rmtree(_HOME, ignore_errors=True))


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder: pydantic-settings and Prefect read a `.env` file from the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _tagged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tag a test's flow runs, because tests in other processes use the same server (`support.prefect_api`)."""
    if "prefect_server" not in request.fixturenames:
        yield
        return
    from support.prefect_api import tagged_as_ours

    with tagged_as_ours():
        yield


@pytest.fixture
def bolts_deployment(prefect_server: LocalPrefectServer) -> Iterator[None]:
    """Use the deployment `run-schedule/bolt` of the READMEs and prefect.yaml alone."""
    with (prefect_server.home / "run-schedule-bolt.lock").open("w") as file:
        # Other tests run in other processes.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def processes(prefect_server: LocalPrefectServer, tmp_path: Path) -> Iterator[Processes]:
    """Starts scripts, `serve` programs and workers that use the server; ends them after the test."""
    from support.processes import Processes

    started = Processes(tmp_path, prefect_server.env)
    try:
        yield started
    finally:
        started.stop_all()


@pytest.fixture(scope="session")
def bench(prefect_server: LocalPrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Starts flow runs as processes. All tests share its worker and its `serve` program."""
    from support.bench import Bench

    bench = Bench(tmp_path_factory.mktemp("bench"), prefect_server.env)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def credentials(bolt_simulator: BoltSimulator) -> ParadimeCredentials:
    """Credentials for the test's own simulator."""
    from support.credentials import credentials_for

    return credentials_for(bolt_simulator, request_timeout_seconds=5)


@pytest.fixture
def record_figures(record_property) -> Callable[..., None]:
    """Record a case's numbers for `make figures`: `record_figures("One fault", runs=…, left_over=…)`."""

    def record(
        group: str, *, runs: Sized | int, left_over: Sized | int, kills: int = 0, cases: int = 1
    ) -> None:
        started = runs if isinstance(runs, int) else len(runs)
        over = left_over if isinstance(left_over, int) else len(left_over)
        record_property(
            "figures", {"group": group, "cases": cases, "kills": kills, "started": started, "left_over": over}
        )

    return record
