"""`make demo`: runs Bolt schedules from Prefect, with only this package installed.

The demo starts the Bolt simulator and a real Prefect server of its own, and saves the credentials block. The demo runs
`run_schedule` on a schedule that succeeds and on a schedule that fails, and prints what Prefect shows about each flow
run. When the demo ends, no process is left running. With `--ui` (`make demo-ui`), the demo keeps Prefect's UI running
until Ctrl-C.

If PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET and PARADIME_SCHEDULE are set, in the environment or in
a `.env` file, the demo runs the schedule PARADIME_SCHEDULE of the real service instead of the simulator. The other
PARADIME_* variables, such as PARADIME_PROXY and PARADIME_WORKSPACE_UID, work as usual.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from demo_log import DemoFormatter, log_to_the_console
from local_server import LocalPrefectServer, ServerDidNotStartError, talking_to
from recorded import add_recorded_samples

if TYPE_CHECKING:
    from types import FrameType

    from paradime_blocks import BoltError, ParadimeCredentials

ROOT = Path(__file__).resolve().parents[1]
SUCCEEDS = "daily"
FAILS = "failing"

SCHEDULE_VARIABLE = "PARADIME_SCHEDULE"

MAKE_UP = "To start flows yourself, with the forms in Prefect's UI: `make up`."

# For each part of an artifact's key: the name of one such artifact, and of several such artifacts. The summary's key
# has no such part.
KINDS = {
    "dbt-results": ("dbt results", "dbt results"),
    "log": ("a command's log", "logs of commands"),
    "links": ("links to the files", "links to the files"),
    "progress": ("progress", "progress"),
}


class DemoFailedError(Exception):
    """The demo did not end as expected."""


@dataclass(frozen=True)
class Bolt:
    """A Bolt backend, real or simulated, and the schedules that the demo runs.

    Attributes:
        credentials: The credentials for the backend.
        schedules: The name of each schedule, and whether the schedule should succeed; None if this is unknown.
        simulated: Whether the backend is the simulator.
    """

    credentials: ParadimeCredentials
    schedules: tuple[tuple[str, bool | None], ...]
    simulated: bool = False


def main() -> int:
    """Run the demo, and return the exit code: 0 if the demo ended as expected."""
    parser = argparse.ArgumentParser(description="Run a Bolt schedule from Prefect.")
    parser.add_argument("--ui", action="store_true", help="keep Prefect's UI up until Ctrl-C")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, _interrupt)
    folder = ROOT / ".demo"
    folder.mkdir(exist_ok=True)
    # Each demo has its own folder, because two demos may run at once.
    home = Path(tempfile.mkdtemp(prefix="prefect-", dir=folder))
    try:
        with ExitStack() as stack:
            bolt = real_bolt() or simulated_bolt(stack)
            code = _run(stack, home, bolt, keep_ui=arguments.ui)
    except KeyboardInterrupt:
        print("\nStopped.")
        code = 130
    except (DemoFailedError, ServerDidNotStartError) as error:
        print(f"\nThe demo FAILED: {error}", file=sys.stderr)
        code = 1
    finally:
        # The folder is deleted, because the server's database contains the secret.
        os.chdir(ROOT)
        shutil.rmtree(home, ignore_errors=True)
    return code


def _run(stack: ExitStack, home: Path, bolt: Bolt, *, keep_ui: bool) -> int:
    _say("Starting a Prefect server, which takes up to half a minute")
    server = stack.enter_context(LocalPrefectServer(home, ui=True))
    _done("ready")

    stack.enter_context(talking_to(server))
    log_to_the_console(DemoFormatter(simulated=bolt.simulated))
    # Prefect reads a file `.env` in the working directory. Prefect should not read the `.env` of the clone.
    os.chdir(home)

    _say("Saving the credentials as a Prefect block")
    _save_blocks(bolt.credentials)
    _done("paradime-credentials/demo")

    ok = True
    for schedule_name, should_succeed in bolt.schedules:
        about = {True: ", which succeeds", False: ", which fails", None: ""}[should_succeed]
        _title(f'run_schedule("{schedule_name}"){about}')
        ok = run_one(server, bolt, schedule_name, should_succeed=should_succeed, links=keep_ui) and ok

    _title("What you saw")
    print(closing(bolt))
    if keep_ui:
        print(f"Prefect's UI is at {server.ui_url}/runs until you press Ctrl-C.")
        if bolt.simulated:
            print("Bolt is simulated, so links to app.paradime.io do not work.")
        _wait_for_ctrl_c()
    else:
        print(
            "Next: `make demo-ui` runs the same demo and keeps Prefect's UI running. README.md shows the code."
        )
    return 0 if ok else 1


def closing(bolt: Bolt) -> str:
    """Return the text that the demo prints at its end."""
    if not bolt.simulated:
        return f"A schedule of your workspace ran as a Prefect flow run, with its log and its artifacts.\n{MAKE_UP}"
    return (
        "Two schedules ran as Prefect flow runs. The flow run of the failed schedule failed, too, with dbt's own "
        "errors.\nEach flow run has the whole output in its log, and a summary, dbt's results and links to files as "
        f"artifacts.\n{MAKE_UP}"
    )


def real_bolt() -> Bolt | None:
    """Return the real Bolt backend that the environment configures; None if the environment names no schedule."""
    from pydantic_settings import BaseSettings

    from paradime_blocks import BoltRequestError, ParadimeCredentials
    from paradime_blocks.settings import ParadimeSettings, read_settings

    class DemoSettings(BaseSettings):
        model_config = ParadimeSettings.model_config
        schedule: str | None = None
        api_endpoint: str | None = None

    settings, _ = read_settings(DemoSettings)
    if settings.schedule is None:
        if settings.api_endpoint is not None:
            print(f"{SCHEDULE_VARIABLE} is not set, so this demo uses the simulator, not your workspace.")
        return None
    try:
        credentials = ParadimeCredentials.from_env()
    except BoltRequestError as error:
        raise DemoFailedError(
            f"{SCHEDULE_VARIABLE} is set, so this demo runs a schedule of the real service. {error} "
            f"Or unset {SCHEDULE_VARIABLE} to use the simulator."
        ) from None
    print(
        f"This demo runs the schedule {settings.schedule!r} of your Paradime workspace from Prefect, on its own "
        "Prefect server.\nThe demo takes a minute longer than the schedule.\n"
    )
    _say(f"Checking the credentials at {credentials.api_endpoint}")
    found = credentials.check()
    _done(found.status)
    if found.status not in {"ok", "refused"}:
        raise DemoFailedError(found.message)
    return Bolt(credentials, schedules=((settings.schedule, None),))


def simulated_bolt(stack: ExitStack) -> Bolt:
    """Start the Bolt simulator, which runs until the `ExitStack` is closed."""
    from pydantic import SecretStr

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

    print(
        "This demo runs two Bolt schedules from Prefect: one that succeeds and one that fails.\n"
        "Bolt is simulated, with the output of a real dbt project; the Prefect server is real.\n"
        "The demo takes about half a minute, a minute on a slow machine, and leaves no process running.\n"
    )
    _say("Starting a simulated Bolt")
    simulator = stack.enter_context(BoltSimulator())
    add_recorded_samples(simulator, seconds=0.6)
    _done("ready")
    credentials = ParadimeCredentials(
        api_endpoint=simulator.api_endpoint,
        api_key=SecretStr(simulator.api_key),
        api_secret=SecretStr(simulator.api_secret),
        # A proxy that the environment configures cannot reach the simulator on our loopback interface.
        proxy=SecretStr("none"),
    )
    return Bolt(credentials, schedules=((SUCCEEDS, True), (FAILS, False)), simulated=True)


def _save_blocks(credentials: ParadimeCredentials) -> None:
    from paradime_blocks import BoltSchedule, ParadimeCredentials

    ParadimeCredentials.register_type_and_schema()
    BoltSchedule.register_type_and_schema()
    credentials.save("demo", overwrite=True)


def run_one(
    server: LocalPrefectServer,
    bolt: Bolt,
    schedule_name: str,
    *,
    should_succeed: bool | None,
    links: bool,
) -> bool:
    """Run a schedule, print the result of the flow, and return whether the flow ended as expected."""
    from paradime_blocks import BoltError
    from paradime_flows.run_schedule import run_schedule

    succeeded = True
    try:
        result = run_schedule(schedule_name, credentials=bolt.credentials)
        print(
            f"\n  Returned:   a {type(result).__name__}, with run_id {result.run_id} and state {_name(result.state)}"
        )
    except BoltError as error:
        succeeded = False
        print(f"\n  Raised:     {type(error).__name__}")
        print("".join(f"              {line}\n" for line in error_lines(error)), end="")
    has_artifacts = show(server, links=links)
    if should_succeed is None:
        return succeeded
    if succeeded != should_succeed:
        raise DemoFailedError(
            f"the schedule {schedule_name!r} {'succeeded' if succeeded else 'failed'} unexpectedly."
        )
    if not has_artifacts:
        raise DemoFailedError(f"the run of the schedule {schedule_name!r} has no artifacts.")
    return True


def error_lines(error: BoltError) -> list[str]:
    """Return the lines of an error to print, without the end of the log, which the demo has already shown."""
    from paradime_blocks.errors import BoltRunError

    details = [error.command_summary, *error.dbt_errors] if isinstance(error, BoltRunError) else []
    return [line for line in [error.message, *details, error.guidance] if line]


def show(server: LocalPrefectServer, *, links: bool) -> bool:
    """Print what Prefect's API returns for the latest flow run, and return whether the flow run has artifacts."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter
    from prefect.client.schemas.filters import FlowRunFilterParentTaskRunId as CallingTaskFilter
    from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_task_run_id=CallingTaskFilter(is_null_=True)),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])),
            sort=ArtifactSort.KEY_ASC,
        )
    # Prefect also stores a result record as an artifact without a key. Prefect's UI does not show this artifact.
    keys = [artifact.key for artifact in artifacts if artifact.key]
    print(f"  Flow run:   {run.name}, {run.state_name}")
    print(f"  Artifacts:  {kinds_of(keys)}")
    if links:
        print(f"  Look at:    {server.ui_url}/runs/flow-run/{run.id}")
    return bool(keys)


def kinds_of(keys: list[str]) -> str:
    """Return the kinds of a flow run's artifacts as text, such as "summary, dbt results"."""
    kinds = Counter(next((kind for kind in KINDS if f"-{kind}" in key), "") for key in keys)
    names = ["summary"] if kinds[""] else []
    for kind, (one, many) in KINDS.items():
        if kinds[kind]:
            names.append(one if kinds[kind] == 1 else f"{kinds[kind]} {many}")
    return ", ".join(names) or "none"


def _name(state: object) -> str:
    return str(getattr(state, "value", state))


def _wait_for_ctrl_c() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print()


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _title(text: str) -> None:
    print(f"\n── {text} " + "─" * max(3, 76 - len(text)), flush=True)


def _say(text: str) -> None:
    print(f"{text} ... ", end="", flush=True)


def _done(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
