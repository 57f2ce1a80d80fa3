"""Processes of a test's own: scripts, `serve` programs and workers, with their output, ended by pid.

Nothing here sleeps for a time that was tuned to a machine: a test waits for a condition, up to a generous
limit, and on reaching the limit is told what it waited for and what the process had printed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

T = TypeVar("T")

# Far beyond what a slow machine needs: reached only by a test that has failed.
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.1
STOP_SECONDS = 20.0

# Every process that descends from a test carries this variable, by which the last of them is found.
MARKER = "PARADIME_TEST_PROCESS"

# Workers and `serve` look for work every second, and not every ten.
QUICK_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PYTHONUNBUFFERED": "1",
}


class ConditionNotMetError(AssertionError):
    """What a test waited for did not come."""


def wait_until(
    condition: Callable[[], T],
    what: str,
    *,
    within: float = WAIT_SECONDS,
    every: float = POLL_SECONDS,
) -> T:
    """Wait until the condition is true, and return its value. The last look is at the deadline."""
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise ConditionNotMetError(f"Waited {within:g} s in vain for: {what}")
        time.sleep(every)


async def await_until(
    condition: Callable[[], Awaitable[T]],
    what: str,
    *,
    within: float = WAIT_SECONDS,
    every: float = POLL_SECONDS,
) -> T:
    """The same for a condition that is awaited."""
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() >= deadline
        value = await condition()
        if value:
            return value
        if late:
            raise ConditionNotMetError(f"Waited {within:g} s in vain for: {what}")
        await asyncio.sleep(every)


class TestProcess:
    """A process in a session and a process group of its own, with its output in a file."""

    __test__ = False

    def __init__(
        self,
        command: list[str],
        *,
        log_path: Path,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        self.command = command
        self.log_path = log_path
        with log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
            )

    def __repr__(self) -> str:
        return f"TestProcess(pid={self.pid}, {' '.join(self.command)})"

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while the process runs. A negative number is the signal that ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    @property
    def output(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, signum: signal.Signals) -> None:
        """A signal to the process alone, as `kill` sends it."""
        if self.running:
            os.kill(self.pid, signum)

    def ctrl_c(self) -> None:
        """SIGINT to the whole process group, as a terminal sends it."""
        self._send_to_group(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the process alone; its children live on."""
        self.send(signal.SIGKILL)

    def wait(self, within: float = WAIT_SECONDS) -> int:
        """Wait for the process's own end, and return its exit code."""
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise ConditionNotMetError(
                f"{self!r} still ran after {within:g} s. Its output:\n{self.output}"
            ) from None

    def wait_for_output(self, text: str, *, within: float = WAIT_SECONDS) -> str:
        """Wait until the text stands in the output, and return the whole output."""

        def seen_or_ended() -> bool:
            ended = not self.running
            return text in self.output or ended

        try:
            wait_until(seen_or_ended, repr(text), within=within)
        except ConditionNotMetError as error:
            raise ConditionNotMetError(f"{error} in the output of {self!r}:\n{self.output}") from None
        output = self.output
        if text not in output:
            raise ConditionNotMetError(
                f"{self!r} ended with code {self.returncode} without printing {text!r}:\n{output}"
            )
        return output

    def stop(self, within: float = STOP_SECONDS) -> int:
        """End the process: SIGTERM, and SIGKILL a while later; then whatever is left in its process group."""
        self.send(signal.SIGTERM)
        try:
            self._popen.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
        code = self._popen.wait()
        self._send_to_group(signal.SIGKILL)
        return code

    def _send_to_group(self, signum: signal.Signals) -> None:
        try:
            os.killpg(self.pid, signum)
        except (ProcessLookupError, PermissionError):  # nobody is left in it (macOS says the second)
            return


class Processes:
    """Starts processes for a test, and ends all of them, with all that they started, when the test is over.

    Args:
        folder: For their output, and their working directory.
        env: The environment to give them: a `LocalPrefectServer`'s `env`, say.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._marker = uuid.uuid4().hex
        self._env = {**env, **QUICK_SETTINGS, MARKER: self._marker}
        self._started: list[TestProcess] = []

    def start(
        self, *command: str, name: str = "process", env: Mapping[str, str] | None = None
    ) -> TestProcess:
        """Start a command; its output goes to a file of that name in the test's folder."""
        log_path = self.folder / f"{len(self._started):02d}-{name}.log"
        process = TestProcess(
            list(command), log_path=log_path, env=self._env | dict(env or {}), cwd=self.folder
        )
        self._started.append(process)
        return process

    def script(self, path: Path, *arguments: str, env: Mapping[str, str] | None = None) -> TestProcess:
        """Start a Python program with this Python."""
        return self.start(sys.executable, str(path), *arguments, name=path.stem, env=env)

    def serve(self, path: Path, *arguments: str, env: Mapping[str, str] | None = None) -> TestProcess:
        """Start a program that calls Prefect's `serve`, and wait until it polls for work."""
        process = self.script(path, *arguments, env=env)
        process.wait_for_output("polling for scheduled")
        return process

    def worker(self, pool: str, *, env: Mapping[str, str] | None = None) -> TestProcess:
        """Start a process worker, and wait until it polls for work; makes the work pool if there is none."""
        process = self.prefect("worker", "start", "--type", "process", "--pool", pool, name="worker", env=env)
        process.wait_for_output("started!")
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        # It says so although a loaded server has refused it the pool; then it asks again.
        deadline = time.monotonic() + 60
        with get_client(sync_client=True) as client:
            while True:
                try:
                    client.read_work_pool(pool)
                except ObjectNotFound:
                    assert time.monotonic() < deadline, process.output
                    time.sleep(0.5)
                else:
                    return process

    def prefect(
        self, *arguments: str, name: str = "prefect", env: Mapping[str, str] | None = None
    ) -> TestProcess:
        """Start a command of Prefect's command line."""
        return self.start(sys.executable, "-m", "prefect", *arguments, name=name, env=env)

    def stop_all(self) -> None:
        """End everything, last started first; then what outlived its parent, as a killed worker's runs do."""
        for process in reversed(self._started):
            process.stop()
        for pid in self.survivors():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def survivors(self) -> list[int]:
        """Descendants of this test's processes that run now, whoever their parent is. Linux only."""
        wanted = f"{MARKER}={self._marker}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
        return found


def deploy(flow: Any, name: str, *, work_pool: str, **options: Any) -> Any:
    """Deploy a flow of an importable module to a work pool, as prefect.yaml does; returns its id."""
    from prefect.types.entrypoint import EntrypointType

    deployment = flow.to_deployment(
        name, work_pool_name=work_pool, entrypoint_type=EntrypointType.MODULE_PATH, **options
    )
    return deployment.apply()


def wait_for_flow_run(
    flow_run_id: Any,
    accept: Callable[[Any], bool] = lambda state: state.is_final(),
    *,
    what: str = "a final state",
    within: float = WAIT_SECONDS,
) -> Any:
    """Wait until the flow run's state is accepted (by default: final), and return the flow run."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:

        def look() -> Any:
            run = client.read_flow_run(flow_run_id)
            return run if run.state is not None and accept(run.state) else None

        return wait_until(look, f"{what} of flow run {flow_run_id}", within=within, every=0.3)
