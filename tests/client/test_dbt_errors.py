"""An error's report on the failed command: dbt's own words, without secrets, bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from recorded import RECORDED
from support.credentials import credentials_for

from paradime_blocks import BoltRunCanceled, BoltRunError, BoltRunFailed, BoltSchedule
from paradime_blocks.testing import BoltSimulator, SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paradime_blocks.run import BoltRun

SECRET = "n33dle-in-the-haystack"
RESULTS = "target/run_results.json"


def results(which: str, message: str = "boom") -> dict[str, bytes]:
    """The file of a command in which one model failed."""
    node = {"unique_id": "model.shop.orders", "status": "error", "message": message}
    return {RESULTS: json.dumps({"metadata": {}, "args": {"which": which}, "results": [node]}).encode()}


def a_run(simulator: BoltSimulator, *commands: SimulatedCommand, **options: Any) -> BoltRun:
    """A run of these commands."""
    simulator.add_schedule("daily", commands=list(commands), setup_commands=False, **options)
    schedule = BoltSchedule(schedule_name="daily", credentials=credentials_for(simulator))
    return schedule.attach(simulator.start_run("daily"))


async def failure_of(*commands: SimulatedCommand, **options: Any) -> BoltRunError:
    """The error of an ended run of these commands."""
    with BoltSimulator(speed=0, api_secret=SECRET) as simulator:
        run = a_run(simulator, *commands, **options)
        simulator.clock.advance(100_000)
        with pytest.raises(BoltRunError) as caught:
            await run.afetch_result()
    return caught.value


def failed(command: str, log: str = "", files: Mapping[str, bytes] | None = None) -> SimulatedCommand:
    """A command that fails."""
    return SimulatedCommand(command, return_code=1, stdout=log, resources=dict(files or {}))


async def test_a_long_command_makes_no_long_message() -> None:
    """The message is clean, too; the whole command is kept as a fact."""
    command = "dbt run\n--vars '\x1b[31mx'" + " y" * 15_000
    error = await failure_of(failed(command, "oops\n"))
    assert len(str(error)) < 1000
    assert "\x1b" not in str(error)
    assert len(error.command or "") > 20_000


async def test_no_cut_shows_a_part_of_a_secret() -> None:
    """The cuts are in dbt's message, and at the start of the log's end."""
    for at in (190, 195, 200, 205):
        error = await failure_of(
            failed("dbt run", SECRET + "y" * (4000 - at // 20), results("run", "p" * at + SECRET))
        )
        assert error.dbt_errors
        message = f"{error} {error.dbt_errors} {error.log_tail}"
        assert SECRET[:8] not in message
        assert SECRET[-8:] not in message


async def test_a_scripts_error_does_not_quote_the_command_before_it() -> None:
    """dbt's folder still has the files of `dbt build`."""
    build = failed("dbt build", "Database Error\n", results("build"))
    upload = failed("python upload.py", "ERROR: bucket is gone\n", results("build"))
    error = await failure_of(build, upload, continue_on_error=True)
    assert (error.command, error.dbt_errors) == ("python upload.py", ["ERROR: bucket is gone"])
    silent = failed("python upload.py", "", results("build"))
    assert (await failure_of(build, silent, continue_on_error=True)).dbt_errors == []


async def test_a_dbt_command_without_results_is_explained_by_its_log() -> None:
    """The results in its folder are of another kind."""
    error = await failure_of(failed("dbt deps", "Error: no such package\n", results("build")))
    assert error.dbt_errors == ["Error: no such package"]


async def test_stale_sources_are_reported_from_the_checks_file() -> None:
    """The file is real dbt's; a source whose query failed is only in the log."""
    folder = RECORDED / "stale_sources" / "3-dbt-source-freshness"
    sources = {"target/sources.json": (folder / "resources/target/sources.json").read_bytes()}
    log = (folder / "stdout.txt").read_text(encoding="utf-8")
    error = await failure_of(failed("dbt source freshness", log, {**results("build"), **sources}))
    assert error.dbt_errors == [
        "source app.customers is stale (more than 12 hours old)",
        (
            "the freshness of source app.refunds could not be checked: Runtime Error in source refunds "
            '(models/schema.yml) Catalog Error: Table with name refunds does not exist! Did you mean "raw_orders"?'
        ),
    ]
    later = await failure_of(failed("dbt build", "Compilation Error\n", sources))
    assert later.dbt_errors == ["Compilation Error"]


async def test_a_cancelled_run_names_the_running_command() -> None:
    """The error has the end of its log, and no errors of earlier commands."""
    with BoltSimulator(speed=0) as simulator:
        run = a_run(
            simulator,
            failed("dbt seed", "Database Error\n", results("seed")),
            SimulatedCommand("dbt run", duration_seconds=1000, stdout="model 1\n" * 100),
            continue_on_error=True,
        )
        simulator.clock.advance(500)
        await run.acancel()
        with pytest.raises(BoltRunCanceled, match='Command "dbt run" was running') as caught:
            await run.afetch_result()
    error = caught.value
    assert (error.command, error.return_code, list(error.dbt_errors)) == ("dbt run", None, [])
    assert "model 1" in (error.log_tail or "")


async def test_a_token_in_a_command_is_not_shown() -> None:
    """`git clone` may have a token in its address; neither the error nor the result shows it."""
    clone = "git clone https://bot:hunter2-token@git.example.com/x.git"
    error = await failure_of(failed(clone))
    assert isinstance(error, BoltRunFailed)
    assert "hunter2" not in f"{error} {vars(error)}"
    with BoltSimulator(speed=0) as simulator:
        run = a_run(simulator, SimulatedCommand(clone))
        simulator.clock.advance(1000)
        result = await run.afetch_result()
    assert result.commands[0].command == "git clone https://[removed]@git.example.com/x.git"


CASES = Path(__file__).parents[1] / "dbt_cases"


@pytest.mark.parametrize(
    "name, command, expected",
    [
        (
            "02_freshness_in_selector",
            "dbt test --select x_freshness_check",
            ["test pallets_freshness_check: Got 4 results, configured to fail if != 0"],
        ),
        (
            "03_hook_failed_1_7",
            "dbt run",
            ['operation on-run-end: relation "gone" does not exist LINE 2: select * from gone'],
        ),
        (
            "04_fusion_no_message",
            "dbt build",
            [
                "model crates: error: dbt1308: Conversion Error: cannot cast 'abc' to INT --> models/crates.sql:3:7",
            ],
        ),
        (
            "07_microbatch",
            "dbt run",
            [
                (
                    "model events succeeded in part: 1 of 2 batches (2024-01-01) failed: Unhandled error "
                    "while executing "
                    "Exception on worker thread. Database Error division by zero"
                ),
            ],
        ),
        (
            "16_source_missing_and_stale",
            "dbt source freshness",
            [
                "source yard.crates is stale (more than 2 days old)",
                (
                    "the freshness of source yard.missing could not be checked: Database Error in source missing "
                    '(models/s.yml) relation "depot.missing" does not exist'
                ),
            ],
        ),
    ],
)
async def test_failures_missing_in_the_files_are_read_from_the_log(name, command, expected) -> None:
    """A failure without a message, a hook, a batch, a source whose query failed."""
    files = {
        f"target/{path.name.removeprefix(f'{name}.')}": path.read_bytes()
        for path in CASES.glob(f"{name}.*.json")
    }
    error = await failure_of(failed(command, (CASES / f"{name}.log").read_text(encoding="utf-8"), files))
    assert error.dbt_errors == expected
