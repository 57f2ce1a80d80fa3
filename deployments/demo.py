"""`make demo`: a Bolt schedule run from Prefect, with nothing installed but this package.

Starts the Bolt simulator and a real Prefect server of its own, registers and saves the blocks, runs
`run_schedule` on a schedule that succeeds and on one that fails, and prints what Prefect then knows about it.
Leaves no process behind; with `--ui` (`make demo-ui`) it keeps Prefect's UI up until Ctrl-C.

With PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET and PARADIME_SCHEDULE set, in the environment or
in a `.env` file, it runs that schedule of the real service, and no simulator; a token as the secret, PARADIME_PROXY
and PARADIME_WORKSPACE_UID do what they do elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from local_server import LocalPrefectServer, ServerDidNotStartError, talking_to
from recorded import recorded_commands

if TYPE_CHECKING:
    from types import FrameType

    from paradime_blocks import ParadimeCredentials

ROOT = Path(__file__).resolve().parents[1]
SUCCEEDS = "daily"
FAILS = "hourly"

SCHEDULE_VARIABLE = "PARADIME_SCHEDULE"

# Prefect's own lines, as part of a story: without the level and the random name of the flow run on each.
LOG_FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "  %(asctime)s  %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "  %(asctime)s  %(task_run_name)s: %(message)s",
}


class DemoFailedError(Exception):
    """What the demo should have shown did not happen."""


@dataclass(frozen=True)
class Bolt:
    """Where Bolt is, and the schedules to run there: name, whether it should succeed (None: not known)."""

    credentials: ParadimeCredentials
    schedules: tuple[tuple[str, bool | None], ...]


def main() -> int:
    """Run the demo; 0 when what should happen did."""
    parser = argparse.ArgumentParser(description="Run a Bolt schedule from Prefect.")
    parser.add_argument("--ui", action="store_true", help="keep Prefect's UI up until Ctrl-C")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, _interrupt)
    folder = ROOT / ".demo"
    folder.mkdir(exist_ok=True)
    # One folder for each demo: two of them may run at once.
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
        # Its database holds the secret.
        os.chdir(ROOT)
        shutil.rmtree(home, ignore_errors=True)
    return code


def _run(stack: ExitStack, home: Path, bolt: Bolt, *, keep_ui: bool) -> int:
    _say("Starting a Prefect server (half a minute on a slow machine)")
    started = time.monotonic()
    server = stack.enter_context(LocalPrefectServer(home, ui=True))
    _done(f"{server.ui_url}, after {time.monotonic() - started:.0f} s")

    stack.enter_context(talking_to(server))
    os.environ |= LOG_FORMATS
    # Prefect reads a `.env` where it runs: not the clone's.
    os.chdir(home)

    _say("Registering the blocks, and saving one with the credentials")
    _save_blocks(bolt.credentials)
    _done("paradime-credentials/demo")

    ok = True
    for schedule_name, should_succeed in bolt.schedules:
        _title(
            {
                True: f"A schedule that succeeds: {schedule_name}",
                False: f"A schedule that fails: {schedule_name}",
                None: f"The schedule {schedule_name}",
            }[should_succeed]
        )
        ok = run_one(server, bolt.credentials, schedule_name, should_succeed=should_succeed) and ok

    print()
    if keep_ui:
        print(f"Prefect's UI: {server.ui_url}/runs    (Ctrl-C stops it)")
        _wait_for_ctrl_c()
    else:
        print(f"Prefect's UI, which was at {server.ui_url}, shows all of it; `make demo-ui` keeps it up.")
    return 0 if ok else 1


def real_bolt() -> Bolt | None:
    """The Bolt that the environment names; None if it names none."""
    from pydantic_settings import BaseSettings

    from paradime_blocks import BoltRequestError, ParadimeCredentials
    from paradime_blocks.settings import ParadimeSettings

    class DemoSettings(BaseSettings):
        model_config = ParadimeSettings.model_config
        schedule: str | None = None
        api_endpoint: str | None = None

    settings = DemoSettings()
    if settings.schedule is None:
        if settings.api_endpoint is not None:
            print(f"{SCHEDULE_VARIABLE} is not set, so this uses the simulator, and not your workspace.")
        return None
    try:
        credentials = ParadimeCredentials.from_env()
    except BoltRequestError as error:
        raise DemoFailedError(
            f"{SCHEDULE_VARIABLE} is set, so this runs a schedule of the real service. {error} "
            f"Or unset {SCHEDULE_VARIABLE} to use the simulator."
        ) from None
    _say(f"Asking {credentials.api_endpoint} about the credentials")
    found = credentials.check()
    _done(found.status)
    if found.status not in {"ok", "refused"}:
        raise DemoFailedError(found.message)
    return Bolt(credentials, schedules=((settings.schedule, None),))


def simulated_bolt(stack: ExitStack) -> Bolt:
    """A simulated Bolt, until the stack is closed."""
    from pydantic import SecretStr

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

    _say("Starting the Bolt simulator")
    simulator = stack.enter_context(BoltSimulator())
    # What real dbt printed and wrote, one run that succeeded and one that failed.
    simulator.add_schedule(SUCCEEDS, commands=recorded_commands("success", seconds=0.6), setup_commands=False)
    simulator.add_schedule(FAILS, commands=recorded_commands("failure", seconds=0.6), setup_commands=False)
    _done(simulator.api_endpoint)
    credentials = ParadimeCredentials(
        api_endpoint=simulator.api_endpoint,
        api_key=SecretStr(simulator.api_key),
        api_secret=SecretStr(simulator.api_secret),
        # A proxy that the environment names has no business between us and the loopback interface.
        proxy=SecretStr("none"),
    )
    return Bolt(credentials, schedules=((SUCCEEDS, True), (FAILS, False)))


def _save_blocks(credentials: ParadimeCredentials) -> None:
    from paradime_blocks import BoltSchedule, ParadimeCredentials

    ParadimeCredentials.register_type_and_schema()
    BoltSchedule.register_type_and_schema()
    credentials.save("demo", overwrite=True)


def run_one(
    server: LocalPrefectServer,
    credentials: ParadimeCredentials,
    schedule_name: str,
    *,
    should_succeed: bool | None,
) -> bool:
    """Run a schedule and print what Prefect shows of it; whether it ended as it should."""
    from paradime_blocks import BoltError
    from paradime_flows.run_schedule import run_schedule

    tidy_the_console()
    succeeded = True
    try:
        result = run_schedule(schedule_name, credentials=credentials)
        print(
            f"\n  returned     {type(result).__name__} {result.run_id}: {_name(result.state)}, {result.url}"
        )
    except BoltError as error:
        # What it says is the flow run's message, below.
        succeeded = False
        print(f"\n  raised       {type(error).__name__}")
    has_artifacts = show(server)
    if should_succeed is None:
        return succeeded
    if succeeded != should_succeed:
        raise DemoFailedError(
            f"the schedule {schedule_name!r} {'succeeded' if succeeded else 'failed'}, and should not have."
        )
    if not has_artifacts:
        raise DemoFailedError(f"the run of the schedule {schedule_name!r} left no artifacts.")
    return True


def show(server: LocalPrefectServer) -> bool:
    """Print what Prefect's API tells about the latest flow run; whether it has artifacts."""
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
        everything = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])),
            sort=ArtifactSort.KEY_ASC,
        )
    # Prefect keeps a record of results without a key, which its UI does not show among the artifacts.
    artifacts = [artifact for artifact in everything if artifact.key]
    print(f"  flow run     {run.name}, {server.ui_url}/runs/flow-run/{run.id}")
    print(f"  end state    {run.state_name}")
    message = (run.state.message if run.state else None) or ""
    if message:
        print("  message      " + message.strip().replace("\n", "\n               "))
    print(f"  artifacts    {len(artifacts)}")
    width = max((len(artifact.key or "") for artifact in artifacts), default=0)
    for artifact in artifacts:
        link = f"{server.ui_url}/artifacts/artifact/{artifact.id}"
        print(f"    {artifact.type or '':<9}  {artifact.key or '':<{width}}  {link}")
    return bool(artifacts)


def tidy_the_console() -> None:
    """Leave out of the console what tells nothing new."""
    from prefect.logging.configuration import setup_logging

    setup_logging()
    for handler in logging.getLogger().handlers:
        handler.addFilter(_tells_something_new)


def _tells_something_new(record: logging.LogRecord) -> bool:
    """Not a failed run's traceback and end, whose gist the state tells; nor the engine's copy of a run's line."""
    if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
        return record.exc_info is None and not record.getMessage().startswith("Finished in state")
    return record.name != "prefect.engine" or record.levelno >= logging.WARNING


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
