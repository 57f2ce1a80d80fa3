"""What every test has: no settings of the user's, and, if it asks, the test run's one Prefect server."""

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

# Before Prefect is imported, which reads them: the user's own Prefect and Bolt must play no part in a test. A
# test that needs a server asks for one (`prefect_server`); it does not get a slow one behind its back.
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "PARADIME_"))]:
    del os.environ[_name]
_HOME = Path(tempfile.mkdtemp(prefix="prefect-paradime-tests-"))
os.environ.update(
    {
        "PREFECT_HOME": str(_HOME),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
        # Each of Prefect's clients reads all its certificates anew; the tests' servers speak http and need none.
        "SSL_CERT_FILE": str(_HOME / "one-certificate.pem"),
    }
)
(_HOME / "one-certificate.pem").write_text(
    Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")[0]
    + "-----END CERTIFICATE-----\n",
    encoding="utf-8",
)

# The same examples each time: what a run finds must be found again. HYPOTHESIS_PROFILE=nightly has ten times as many,
# HYPOTHESIS_PROFILE=default looks for others.
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
    """Let SIGTERM end a test run as Ctrl-C does: fixtures are torn down, and with them their processes."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    config.add_cleanup(lambda: signal.signal(signal.SIGTERM, previous))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a script, it is ignored; so it would be by the processes that are started here.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.add_cleanup(lambda: shutil.rmtree(_HOME, ignore_errors=True))


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder: pydantic-settings and Prefect read a `.env` where they run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _tagged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tag a test's flow runs as its own: other processes' tests use the same server (`support.prefect_api`)."""
    if "prefect_server" not in request.fixturenames:
        yield
        return
    from support.prefect_api import tagged_as_ours

    with tagged_as_ours():
        yield


@pytest.fixture
def bolts_deployment(prefect_server: LocalPrefectServer) -> Iterator[None]:
    """Have the deployment `run-schedule/bolt`, which the READMEs and prefect.yaml make, to oneself."""
    with (prefect_server.home / "run-schedule-bolt.lock").open("w") as file:
        # Other tests of the run are in other processes.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def processes(prefect_server: LocalPrefectServer, tmp_path: Path) -> Iterator[Processes]:
    """Starts scripts, `serve` programs and workers that talk to the server; ends them after the test."""
    from support.processes import Processes

    started = Processes(tmp_path, prefect_server.env)
    try:
        yield started
    finally:
        started.stop_all()


@pytest.fixture(scope="session")
def bench(prefect_server: LocalPrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Starts flow runs as processes; its worker and its `serve` program are shared by all tests."""
    from support.bench import Bench

    bench = Bench(tmp_path_factory.mktemp("bench"), prefect_server.env)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def credentials(bolt_simulator: BoltSimulator) -> ParadimeCredentials:
    """Credentials of the test's own simulator."""
    from support.credentials import credentials_for

    return credentials_for(bolt_simulator, request_timeout_seconds=5)


@pytest.fixture
def record_figures(record_property) -> Callable[..., None]:
    """Record what a case came to, for `make figures`: `record_figures("One fault", runs=…, left_over=…)`."""

    def record(
        group: str, *, runs: Sized | int, left_over: Sized | int, kills: int = 0, cases: int = 1
    ) -> None:
        started = runs if isinstance(runs, int) else len(runs)
        over = left_over if isinstance(left_over, int) else len(left_over)
        record_property(
            "figures", {"group": group, "cases": cases, "kills": kills, "started": started, "left_over": over}
        )

    return record
