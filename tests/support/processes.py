"""A test's own processes: scripts, `serve` programs and workers. Their output is kept, and they are ended by pid.

Nothing here sleeps for a time tuned to a machine. A test waits for a condition, up to a generous limit; when the limit
is reached, the error says what the test waited for and what the process printed.
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

# Far more than a slow machine needs: only a failed test reaches it.
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.1
STOP_SECONDS = 20.0

# All descendants of a test carry this variable, so that the last of them can be found.
MARKER = "PARADIME_TEST_PROCESS"

# Workers and `serve` poll for work every second instead of every ten.
QUICK_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PYTHONUNBUFFERED": "1",
}


class ConditionNotMetError(AssertionError):
    """The condition that a test waited for did not become true."""


def wait_until(
    condition: Callable[[], T],
    what: str,
    *,
    within: float = WAIT_SECONDS,
    every: float = POLL_SECONDS,
) -> T:
    """Wait until the condition is true, and return its value. The last check is at the deadline."""
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
    """The same for an async condition."""
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
    """A process in its own session and process group, with its output in a file."""

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
        """The exit code; None while the process runs. A negative number is the signal that ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    @property
    def output(self) -> str:
        return self.log_path.read_text(errors="replace")

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the process alone, as `kill` does."""
        if self.running:
            os.kill(self.pid, signum)

    def ctrl_c(self) -> None:
        """Send SIGINT to the whole process group, as a terminal does."""
        self._send_to_group(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to the process alone; its children stay alive."""
        self.send(signal.SIGKILL)

    def wait(self, within: float = WAIT_SECONDS) -> int:
        """Wait until the process ends on its own, and return its exit code."""
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise ConditionNotMetError(
                f"{self!r} still ran after {within:g} s. Its output:\n{self.output}"
            ) from None

    def wait_for_output(self, text: str, *, within: float = WAIT_SECONDS) -> str:
        """Wait until the output contains the text, and return the whole output."""

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
        """End the process: SIGTERM, then SIGKILL after some time, then the rest of its process group."""
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
        except (ProcessLookupError, PermissionError):  # the group is empty (macOS raises the second)
            return


class Processes:
    """Starts processes for a test, and ends them and all their descendants after the test.

    Args:
        folder: Their working directory, and the place for their output.
        env: Their environment: the `env` of a `LocalPrefectServer`, say.
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
        """Start a Python program with the same Python."""
        return self.start(sys.executable, str(path), *arguments, name=path.stem, env=env)

    def serve(self, path: Path, *arguments: str, env: Mapping[str, str] | None = None) -> TestProcess:
        """Start a program that calls Prefect's `serve`, and wait until it polls for work."""
        process = self.script(path, *arguments, env=env)
        process.wait_for_output("polling for scheduled")
        return process

    def worker(self, pool: str, *, env: Mapping[str, str] | None = None) -> TestProcess:
        """Start a process worker, and wait until it polls for work; create the work pool if there is none."""
        process = self.prefect("worker", "start", "--type", "process", "--pool", pool, name="worker", env=env)
        process.wait_for_output("started!")
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        # The worker prints this even if a busy server refused to create the pool; then it asks again.
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
        """Start a command of the `prefect` command line."""
        return self.start(sys.executable, "-m", "prefect", *arguments, name=name, env=env)

    def stop_all(self) -> None:
        """End all processes, newest first; then those that outlived their parent, such as a killed worker's runs."""
        for process in reversed(self._started):
            process.stop()
        for pid in self.survivors():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def survivors(self) -> list[int]:
        """The descendants of this test's processes that are alive, whatever their parent. Linux only."""
        wanted = f"{MARKER}={self._marker}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it has ended, or belongs to another user
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
    """Wait until the flow run's state is accepted (by default: a final state), and return the flow run."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:

        def look() -> Any:
            run = client.read_flow_run(flow_run_id)
            return run if run.state is not None and accept(run.state) else None

        return wait_until(look, f"{what} of flow run {flow_run_id}", within=within, every=0.3)
