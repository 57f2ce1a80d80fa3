"""What a Bolt run leaves in Prefect, read back through Prefect's API. The dbt files come from a real dbt."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.filesystems import LocalFileSystem
from recorded import RECORDED, recorded_commands
from support.prefect_api import artifacts_of, latest_flow_run, logs_of

from paradime_blocks import BoltClient, BoltRequestError, BoltRunFailed, BoltRunState, ParadimeCredentials
from paradime_blocks.models import BoltDbtResult, run_url
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults
from paradime_blocks.text import shorten
from paradime_flows.archive_run import aarchive_run, archive_run
from paradime_flows.inspect_run import ainspect_run
from paradime_flows.run_schedule import arun_schedule

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Artifact

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
HOSTILE = (
    "\x1b[31mred\x1b[0m ```\n```` </code></pre><script>document.title = 'PWNED'</script>\n"
    "<img src=x onerror=alert(1)> [click](javascript:alert(2)) | a | b |\n"
    "\x00\x07\x1b]0;title\x07 \u202egnp.exe\n"
)


def ended_run(simulator: BoltSimulator, name: str, commands: list[Any], **options: Any) -> int:
    """Return the id of a run that ended and was not started from Prefect."""
    simulator.add_schedule(name, commands=commands, setup_commands=False, **options)
    run_id = simulator.start_run(name)
    simulator.clock.advance(100_000)
    return run_id


async def archived(flow_name: str = "archive-run") -> dict[str, Artifact]:
    """Return the artifacts of a flow's latest run by key."""
    return await artifacts_of((await latest_flow_run(flow_name)).id)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def text_of(artifact: Artifact) -> str:
    return str(artifact.data)


async def test_a_failed_run_is_reported_with_its_cause_first(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Summary, results and error name the failed nodes in dbt's words; the state's message stays short."""
    bolt_simulator.clock.speed = 100
    bolt_simulator.add_schedule("shop", commands=recorded_commands("failure"))
    with pytest.raises(BoltRunFailed) as raised:
        await arun_schedule("shop", credentials, **QUICK)
    error = raised.value
    assert error.command == "dbt build"
    assert error.return_code == 1
    assert [line.split(":")[0] for line in error.dbt_errors] == [
        "model revenue",
        "test accepted_values_customers_country__GB__US",
        "test broken_query",
    ]
    assert "Could not convert string 'card' to INT32" in error.dbt_errors[0]
    assert "\x1b" not in (error.log_tail or "")
    run = await latest_flow_run("run-schedule")
    message = (run.state and run.state.message) or ""
    assert "model revenue" in message
    assert f"/bolt/run_id/{error.run_id}" in message
    assert len(message) <= 2000
    found = await artifacts_of(run.id)
    head = text_of(found["paradime-shop"]).split("\n\n")[:2]
    assert head[0] == "# ❌ shop: FAILED"
    assert "dbt build: model revenue failed: Runtime Error" in head[1]
    assert "2 more failed; 1 node skipped" in head[1]
    for line in ("Where the time went", "(starting)", "3 failed, 1 warned, 1 skipped, 15 succeeded"):
        assert line in text_of(found["paradime-shop"])
    assert "- **model revenue**: Runtime Error" in text_of(found["paradime-shop"])


async def test_the_result_has_what_dbt_did(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A run that goes on after a failure returns the failures; archiving and inspecting it later say the same."""
    bolt_simulator.clock.speed = 100
    commands = recorded_commands("failure")
    bolt_simulator.add_schedule("tests", commands=commands, continue_on_error=True, final_state="SUCCESS")
    result = await arun_schedule("tests", credentials, **QUICK)
    assert [node.name for node in result.dbt.failed_tests] == [
        *("accepted_values_customers_country__GB__US", "broken_query"),
    ]
    assert [node.name for node in result.dbt.failed_nodes] == ["revenue"]
    assert result.dbt.count() == 20
    assert result.dbt.unread == []
    assert (await aarchive_run(result.run_id, credentials)).dbt == result.dbt
    inspected = await ainspect_run(result.run_id, credentials)
    assert inspected.dbt == result.dbt
    page = text_of((await archived("inspect-run"))[f"paradime-inspect-{result.run_id}"])
    assert "3 failed, 1 warned, 1 skipped, 15 succeeded" in page
    assert "- **model revenue**: Runtime Error" in page
    assert "| Rows | " in page


async def test_a_result_without_dbt_files_is_empty(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A flow that branches on dbt's results needs no check for None."""
    command = SimulatedCommand("python export.py", resources={})
    run_id = ended_run(bolt_simulator, "export", [command])
    assert (await aarchive_run(run_id, credentials)).dbt == BoltDbtResult()
    assert (await ainspect_run(run_id, credentials)).dbt == BoltDbtResult()


async def test_the_usual_duration_is_told(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """From one request for the schedule's runs; a backend without that list has none, and that is no problem."""
    bolt_simulator.clock.speed = 0
    command = SimulatedCommand("dbt run", resources={}, duration_seconds=60)
    bolt_simulator.add_schedule("steady", commands=[command], setup_commands=False)
    for commands in (None, None, None, ["dbt run", "dbt run"]):
        run_id = bolt_simulator.start_run("steady", commands=commands)
        bolt_simulator.clock.advance(1000)
    result = await aarchive_run(run_id, credentials, schedule_name="steady")
    assert bolt_simulator.count("listBoltRuns") == 1
    assert result.usual_duration is not None
    assert result.usual_duration.runs == 3
    assert result.usual_duration.difference_seconds == 60
    told = f"{shorten(result.usual_duration.seconds)} (median of 3 runs); this run took 1m 0s longer"
    assert f"| Usual duration | {told} |" in text_of((await archived())["paradime-steady"])
    assert (await ainspect_run(run_id, credentials)).usual_duration == result.usual_duration
    page = text_of((await archived("inspect-run"))[f"paradime-inspect-{run_id}"])
    assert f"| Usual duration | {told} |" in page
    bolt_simulator.lacks(operations=["listBoltRuns"])
    for older in (
        await aarchive_run(run_id, credentials, schedule_name="steady"),
        await ainspect_run(run_id, credentials),
    ):
        assert (older.state, older.usual_duration) == (BoltRunState.SUCCESS, None)


async def test_dbt_results_of_all_commands_are_merged_with_failures_first(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The nodes that `dbt seed` and `dbt run` built stand beside those that `dbt build` failed, each node once."""
    run_id = ended_run(bolt_simulator, "merged", recorded_commands("failure"))
    await aarchive_run(run_id, credentials, schedule_name="merged")
    text = text_of((await archived())["paradime-merged-dbt-results"])
    assert "merged from dbt seed, dbt run --select staging no_such_model, dbt build" in text
    failures, rest = text.split("#### Warnings")
    assert "models/marts/revenue.sql" in failures
    assert "target/compiled/shop/models/marts/revenue.sql" in failures
    assert "revenue_by_month" not in failures
    table = rest.split("#### All nodes")[1]
    names = re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \|", table, re.MULTILINE)[2:]
    assert len(names) == len(set(names)) == 20


async def test_a_retry_counts_for_what_it_retried(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """After `dbt retry` succeeded, nothing is reported as failed, and no cause is searched for."""
    commands = recorded_commands("retry")
    run_id = ended_run(bolt_simulator, "again", commands, continue_on_error=True, final_state="SUCCESS")
    await aarchive_run(run_id, credentials, schedule_name="again")
    found = await archived()
    assert "failed" not in text_of(found["paradime-again"]).split("| dbt |")[1].split("\n")[0]
    assert "#### Failures" not in text_of(found["paradime-again-dbt-results"])


async def test_source_freshness_is_shown_beside_the_results(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Stale sources come first, and the cause names the first one."""
    run_id = ended_run(bolt_simulator, "fresh", recorded_commands("stale_sources"))
    result = await aarchive_run(run_id, credentials, schedule_name="fresh")
    assert result.state in BoltRunState.FAILURES
    found = await archived()
    assert "#### Source freshness" in text_of(found["paradime-fresh-dbt-results"])
    assert "stale" in text_of(found["paradime-fresh"]).split("\n\n")[1]


async def test_a_command_without_results_is_explained_from_its_log(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """dbt writes no results if it fails before it runs a node; its first error is then the cause."""
    bolt_simulator.clock.speed = 100
    bolt_simulator.add_schedule("broken", commands=recorded_commands("compilation_error"))
    with pytest.raises(BoltRunFailed) as raised:
        await arun_schedule("broken", credentials, **QUICK)
    assert raised.value.dbt_errors
    assert "Compilation Error" in raised.value.dbt_errors[0]
    found = await archived("run-schedule")
    assert "Compilation Error" in text_of(found["paradime-broken"]).split("\n\n")[1]


async def test_the_command_that_ended_a_run_is_its_cause(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """dbt build failed as well, but the run continued; error and summary both name the script."""
    bolt_simulator.clock.speed = 100
    upload = SimulatedCommand(
        "python upload.py", return_code=3, stdout="ERROR: bucket is gone\n", resources={}
    )
    commands = [*recorded_commands("failure"), upload]
    bolt_simulator.add_schedule("two", commands=commands, continue_on_error=True)
    with pytest.raises(BoltRunFailed) as raised:
        await arun_schedule("two", credentials, **QUICK)
    assert (raised.value.command, raised.value.dbt_errors) == ("python upload.py", ["ERROR: bucket is gone"])
    cause = text_of((await archived("run-schedule"))["paradime-two"]).split("\n\n")[1]
    assert cause == "**python upload.py: ERROR: bucket is gone; failed nodes in other commands: 3**"


async def test_an_unknown_failure_has_a_cause_too(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It consists of the command, its return code and its last line."""
    command = SimulatedCommand("./load.sh", return_code=7, stdout="loading\nit is all over\n", resources={})
    run_id = ended_run(bolt_simulator, "odd", [command])
    await aarchive_run(run_id, credentials, schedule_name="odd")
    cause = text_of((await archived())["paradime-odd"]).split("\n\n")[1]
    assert cause == "**Command ./load.sh ended with return code 7: it is all over**"


async def test_secrets_in_what_dbt_wrote_reach_no_artifact(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A driver's message may contain a connection string or a signed link."""
    secret = bolt_simulator.api_secret
    message = f"{'p' * 100}{secret} https://s3.test/x?X-Amz-Signature=abcdef"
    node = {"unique_id": "model.shop.orders", "status": "error", "message": message}
    content = json.dumps({"metadata": {}, "args": {"which": "run"}, "results": [node]}).encode()
    command = SimulatedCommand("dbt run", return_code=1, resources={"target/run_results.json": content})
    run_id = ended_run(bolt_simulator, "hush", [command])
    await aarchive_run(run_id, credentials, schedule_name="hush")
    pages = {key: text_of(artifact) for key, artifact in (await archived()).items() if "target" not in key}
    assert "model orders" in pages["paradime-hush-dbt-results"]
    shown = "\n".join(pages.values())
    assert [part for part in (secret[:15], "abcdef") if part in shown] == []


async def test_a_log_within_the_limit_is_archived_whole(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Every line of the log is there, without colours, in one block."""
    run_id = ended_run(bolt_simulator, "logs", recorded_commands("failure"))
    await aarchive_run(run_id, credentials, schedule_name="logs")
    log = text_of((await archived())["paradime-logs-log-4-dbt-build"])
    printed = (RECORDED / "failure" / "4-dbt-build" / "stdout.txt").read_text(encoding="utf-8")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in printed.strip().splitlines()]
    assert log.startswith("**stdout**\n\n```text\n")
    assert all(line.rstrip() in log for line in lines)
    assert "\x1b" not in log


async def test_a_long_log_shows_head_and_tail_and_is_stored_whole(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, tmp_path: Path
) -> None:
    """The artifact respects the limit, says what is left out, and names the stored file with the whole log."""
    log = "".join(f"line {n} of the log\n" for n in range(20_000))
    run_id = ended_run(bolt_simulator, "long", [SimulatedCommand("dbt run", stdout=log, resources={})])
    await aarchive_run(
        run_id,
        credentials,
        schedule_name="long",
        log_limit_bytes=10_000,
        storage=LocalFileSystem(basepath=str(tmp_path / "kept")),
    )
    found = await archived()
    shown = text_of(found["paradime-long-log-1-dbt-run"])
    assert len(shown.encode()) < 11_000
    assert "line 0 of the log" in shown
    assert "line 19999 of the log" in shown
    kept = tmp_path / "kept" / "long" / str(run_id) / "1-dbt-run" / "stdout.log"
    assert f"bytes left out in the middle; the whole log is stored as [{kept}]({kept.as_uri()})" in shown
    assert kept.read_text() == log
    assert f"| [{kept}]({kept.as_uri()}) |" in text_of(found["paradime-long"])


async def test_a_hostile_log_stays_in_its_block(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Backticks cannot close the block, control characters are removed, and no other place shows the raw text."""
    command = SimulatedCommand(
        "echo '<script>alert(3)</script>' ```", return_code=1, stdout=HOSTILE, resources={}
    )
    run_id = ended_run(bolt_simulator, "<b>hostile</b> | `name`", [command])
    await aarchive_run(run_id, credentials, schedule_name="<b>hostile</b> | `name`")
    found = await archived()
    (key,) = [key for key in found if "-log-1-" in key]
    shown = text_of(found[key])
    fence = re.search(r"^(`{3,})text\n", shown, re.MULTILINE)
    assert fence is not None
    assert shown.endswith(f"\n{fence[1]}")
    assert max(len(ticks) for ticks in re.findall("`+", shown[fence.end() : -len(fence[1])])) < len(fence[1])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", shown)
    for artifact in found.values():
        if artifact.key != key:
            outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text_of(artifact), flags=re.MULTILINE | re.DOTALL)
            assert not re.search("<(script|b|img)", outside)


async def test_each_resource_has_a_link_that_says_when_it_expires(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """One table has them, by command and path; their signatures are in no log line."""
    run_id = ended_run(bolt_simulator, "links", recorded_commands("success"))
    await aarchive_run(run_id, credentials, schedule_name="links")
    rows = text_of((await archived())["paradime-links-links"]).splitlines()
    link = r"\[target/manifest\.json\]\(http://[^ )]+X-Signature=\w+\)"
    expected = rf"\| 2 dbt seed \| {link} \| \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \|"
    assert [row for row in rows if re.fullmatch(expected, row)]
    run = await latest_flow_run("archive-run")
    assert not any("X-Signature" in line for line in await logs_of(run.id))


async def test_stored_files_are_the_files_themselves(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, tmp_path: Path
) -> None:
    """By default, manifest, run results and sources are stored unchanged; a block is found by its name."""
    await LocalFileSystem(basepath=str(tmp_path / "kept")).save("storage-test", overwrite=True)  # type: ignore[misc]
    run_id = ended_run(bolt_simulator, "kept", recorded_commands("success"))
    await aarchive_run(run_id, credentials, schedule_name="kept", storage="storage-test")
    folder = tmp_path / "kept" / "kept" / str(run_id)
    names = {path.name for path in files_below(folder)}
    assert {"manifest.json", "run_results.json"} <= names
    assert "catalog.json" not in names
    original = RECORDED / "success" / "2-dbt-seed" / "resources" / "target" / "run_results.json"
    assert (folder / "2-dbt-seed" / "target" / "run_results.json").read_bytes() == original.read_bytes()
    summary = text_of((await archived())["paradime-kept"])
    assert f"Stored under {folder}, through the block local-file-system/storage-test." in summary


async def test_a_resources_path_cannot_leave_its_folder(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, tmp_path: Path
) -> None:
    """Whatever the path is, its file is stored below the run's folder."""
    # The unit tests have paths with "..": an HTTP client would remove them from the link.
    paths = [str(tmp_path / "absolute.json"), "~/home.json", "C:\\windows.json"]
    command = SimulatedCommand("../dbt run /etc", resources=dict.fromkeys(paths, b"{}"))
    run_id = ended_run(bolt_simulator, "../..", [command])
    kept = tmp_path / "kept"
    await aarchive_run(
        run_id,
        credentials,
        schedule_name="../..",
        storage=LocalFileSystem(basepath=str(kept)),
        storage_patterns=["*"],
    )
    written = [path for path in files_below(tmp_path) if path.read_bytes() == b"{}"]
    assert len(written) == len(paths)
    assert all(kept / "_" / str(run_id) in path.parents for path in written)


async def test_a_file_that_cannot_be_stored_is_reported_and_hides_nothing(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, tmp_path: Path
) -> None:
    """The summary says what is missing; results and links still exist."""
    (tmp_path / "file").write_text("in the way")
    run_id = ended_run(bolt_simulator, "unwritable", recorded_commands("success"))
    filesystem = LocalFileSystem(basepath=str(tmp_path / "file"))
    await aarchive_run(run_id, credentials, schedule_name="unwritable", storage=filesystem)
    found = await archived()
    assert "the stored copy of target/run_results.json" in text_of(found["paradime-unwritable"]).replace(
        "\\_", "_"
    )
    assert "paradime-unwritable-dbt-results" in found


async def test_resources_that_cannot_be_fetched_are_reported_and_hide_nothing(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A store that responds with 403 costs the results, but not the summary, the logs and the links."""
    run_id = ended_run(bolt_simulator, "refused", recorded_commands("failure"))
    bolt_simulator.inject(faults.Status(403, operation="resource", times=None))
    result = await aarchive_run(run_id, credentials, schedule_name="refused")
    found = await archived()
    missing = text_of(found["paradime-refused"]).split("## Not archived")[1]
    assert "refused its signed URL" in missing
    assert "1 more resources" in missing
    assert "paradime-refused-log-4-dbt-build" in found
    assert "target/manifest.json" in text_of(found["paradime-refused-links"])
    assert "paradime-refused-dbt-results" not in found
    # Nobody takes the lists for complete.
    for unread in (result.dbt.unread, (await ainspect_run(run_id, credentials)).dbt.unread):
        assert any("run_results.json" in line for line in unread)


async def test_a_missing_storage_block_is_an_error_before_anything_is_sent(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The error says how to name a block, and no run was triggered."""
    bolt_simulator.add_schedule("daily")
    with pytest.raises(BoltRequestError, match="no storage block 'nowhere'"):
        await arun_schedule("daily", credentials, storage="nowhere")
    with pytest.raises(
        BoltRequestError, match=r"no storage block 's3-bucket/nowhere'|needs a Prefect integration"
    ):
        await arun_schedule("daily", credentials, storage="s3-bucket/nowhere")
    assert bolt_simulator.runs("daily") == []


async def test_a_run_that_is_still_running_is_archived_so_far(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The summary says so; everything that has ended is there."""
    commands = [SimulatedCommand("dbt seed"), SimulatedCommand("dbt run", duration_seconds=10_000)]
    bolt_simulator.clock.speed = 0
    bolt_simulator.add_schedule("going", commands=commands, setup_commands=False)
    run_id = bolt_simulator.start_run("going")
    bolt_simulator.clock.advance(60)
    result = await aarchive_run(run_id, credentials, schedule_name="going")
    assert result.state == BoltRunState.RUNNING
    assert result.commands[0].command == "dbt seed"
    found = await archived()
    assert "The Bolt run has not ended yet (RUNNING)" in text_of(found["paradime-going"])
    assert "running" in text_of(found["paradime-going"])
    assert "paradime-going-dbt-results" in found


def test_sync_code_archives_a_run_started_outside_prefect(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It needs neither the schedule's name nor a flow run that triggered it. A failed run does not fail the flow."""
    run_id = ended_run(bolt_simulator, "foreign", recorded_commands("failure"))
    result = archive_run(run_id, credentials)
    assert result.state == BoltRunState.FAILED
    assert [attempt.run_id for attempt in result.attempts] == [run_id]
    assert len(result.resources) == 6
    with pytest.raises(BoltRequestError):
        archive_run(run_id + 1000, credentials)


async def test_the_runs_of_a_schedule_share_the_summarys_key(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect's page of the key is the schedule's history: one artifact for each run, newest first."""
    bolt_simulator.clock.speed = 100
    bolt_simulator.add_schedule("history-of-one", commands=["dbt run"], setup_commands=False)
    ids = [(await arun_schedule("history-of-one", credentials, **QUICK)).run_id for _ in range(2)]
    # Archived by the run's id alone, it still joins the others.
    ids.append(bolt_simulator.start_run("history-of-one"))
    bolt_simulator.clock.advance(1000)
    await aarchive_run(ids[-1], credentials)
    async with get_client() as client:
        history = await client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["paradime-history-of-one"]))
        )
    assert sorted(str(run_id) for run_id in ids) == sorted(
        re.search(r"\[(\d+)\]\(https://app", str(each.data))[1]  # type: ignore[index]
        for each in history
    )


async def test_a_run_of_another_client_shows_what_is_known(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Its schedule is searched for. Who triggered it and what it checked out comes from Bolt; we do not guess."""
    bolt_simulator.add_schedule("elsewhere", commands=["dbt run"], setup_commands=False)
    run_id = bolt_simulator.start_run("elsewhere", branch="feature-x", actor="jane")
    bolt_simulator.clock.advance(1000)
    result = await aarchive_run(run_id, credentials)
    assert result.schedule_name == "elsewhere"
    text = text_of((await archived())["paradime-elsewhere"])
    assert re.search(r"^\| Triggered by \| jane", text, re.MULTILINE)
    assert re.search(r"^\| Checked out \| feature-x", text, re.MULTILINE)
    assert "the schedule's own" not in text


async def test_a_run_whose_schedule_cannot_be_found_is_archived_by_its_id(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A failed search costs nothing else."""
    run_id = ended_run(bolt_simulator, "nowhere", [SimulatedCommand("dbt run", resources={})])
    bolt_simulator.inject(faults.GraphQLError("No.", operation="listBoltSchedules", times=None))
    result = await aarchive_run(run_id, credentials)
    assert (result.schedule_name, result.state) == (None, BoltRunState.SUCCESS)
    found = await archived()
    assert "## Not archived" not in text_of(found[f"paradime-run-{run_id}"])


@pytest.mark.parametrize("limit", [0, 3])
async def test_as_many_files_are_linked_as_asked_for(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, limit: int
) -> None:
    """dbt's own and those to be stored come first, one table has them all, and Bolt is asked for no other."""
    resources = {f"target/compiled/{n:03}.sql": b"select 1" for n in range(100)}
    resources |= {"target/run_results.json": b"{}", "notes/kept.txt": b"kept"}
    run_id = ended_run(bolt_simulator, "many", [SimulatedCommand("dbt run", resources=resources)])
    storage = LocalFileSystem(basepath="kept")
    await aarchive_run(run_id, credentials, link_limit=limit, storage=storage, storage_patterns=["*.txt"])
    found = await archived()
    assert [key for key in found if "link" in key] == ["paradime-many-links"][:limit]
    if limit:
        links = text_of(found["paradime-many-links"])
        names = [path for path in resources if path in links.replace("\\_", "_")]
        assert names == ["target/compiled/000.sql", "target/run_results.json", "notes/kept.txt"]
        assert "99 more files" in links


async def test_a_missing_link_does_not_affect_the_others(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary says which link is missing."""
    resources = {f"target/{n}.json": b"{}" for n in range(3)}
    run_id = ended_run(bolt_simulator, "gap", [SimulatedCommand("dbt run", resources=resources)])
    asked_for = BoltClient.get_bolt_resource_urls

    async def with_a_stranger(client: BoltClient, ids: list[int], **options: Any) -> dict[int, str]:
        found = await asked_for(client, [999_999, *ids[1:]], **options)
        errors = options["errors"]
        errors[ids[0]] = errors.pop(999_999)
        return found

    monkeypatch.setattr(BoltClient, "get_bolt_resource_urls", with_a_stranger)
    await aarchive_run(run_id, credentials)
    found = await archived()
    links = text_of(found["paradime-gap-links"])
    assert [f"target/{n}.json" in links for n in range(3)] == [False, True, True]
    assert "the link to target/0.json of command 1" in text_of(found["paradime-gap"]).split("Not archived")[1]


async def test_a_retried_run_shows_all_its_attempts(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The summary has both the failed and the successful attempt, with their times."""
    bolt_simulator.clock.speed = 100
    bolt_simulator.add_schedule("retried", commands=[SimulatedCommand("dbt run", return_code=(1, 0))])
    result = await arun_schedule("retried", credentials, retries=1, retry_delay_seconds=0, **QUICK)
    text = text_of((await archived("run-schedule"))["paradime-retried"])
    attempts = text.split("## Attempts")[1].split("##")[0]
    assert [str(attempt.run_id) in attempts for attempt in result.attempts] == [True, True]
    assert "❌ FAILED" in attempts
    assert f"run {result.attempts[0].run_id}" in text.split("## Where the time went")[1].split("##")[0]


async def test_secrets_are_in_no_artifact(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A log that contains the credentials, or an address with a password, is archived without them."""
    secret = credentials.api_secret.get_secret_value()
    command = "git clone https://bot:hunter2-token@git.example.com/shop.git"
    log = f"PARADIME_API_SECRET={secret}\nhttps://bot:hunter2-token@git.example.com\n"
    run_id = ended_run(
        bolt_simulator, "secrets", [SimulatedCommand(command, stdout=log, return_code=128, resources={})]
    )
    await aarchive_run(run_id, credentials, schedule_name="secrets")
    for artifact in (await archived()).values():
        assert secret not in text_of(artifact)
        assert "hunter2" not in text_of(artifact) + (artifact.description or "")


async def test_models_become_assets_as_prefect_dbt_keys_them(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A built model is a materialisation, a failed one a failed materialisation, each with its upstream nodes."""
    run_id = ended_run(bolt_simulator, "assets", recorded_commands("failure"))
    await aarchive_run(run_id, credentials, schedule_name="assets", assets=True)
    run = await latest_flow_run("archive-run")
    events = await asset_events(str(run.id), 11)
    kinds = {event["resource"]["prefect.resource.id"]: event["event"] for event in events}
    assert kinds["duckdb://shop/main/orders"] == "prefect.asset.materialization.succeeded"
    assert kinds["duckdb://shop/main/raw_orders"] == "prefect.asset.materialization.succeeded"
    assert kinds["duckdb://shop/main/revenue"] == "prefect.asset.materialization.failed"
    assert "duckdb://shop/main/revenue_by_month" not in kinds
    orders = next(e for e in events if e["resource"]["prefect.resource.id"] == "duckdb://shop/main/orders")
    above = {each["prefect.resource.id"] for each in orders["related"]}
    assert {"duckdb://shop/main/stg_orders", "duckdb://shop/main/stg_payments", "dbt"} <= above
    assert orders["payload"]["bolt_run_id"] == run_id
    assert orders["payload"]["bolt_run_url"] == orders["resource"]["prefect.asset.url"] == run_url(run_id)
    assert "9 materialised, 1 failed" in text_of((await artifacts_of(run.id))["paradime-assets"])


async def test_a_model_with_many_sources_is_an_asset(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect refuses an event with more than 100 related resources, and reports no error."""

    def node(unique_id: str, *upstream: str) -> dict[str, Any]:
        kind, *_, name = unique_id.split(".")
        relation = f"d.main.{name}"
        return {
            "unique_id": unique_id,
            "resource_type": kind,
            "relation_name": relation,
            "depends_on": {"nodes": upstream},
        }

    sources = {name: node(name) for name in (f"source.shop.raw.s{n}" for n in range(150))}
    nodes = {"model.shop.wide": node("model.shop.wide", *sources)}
    manifest = {"metadata": {"adapter_type": "duckdb"}, "nodes": nodes, "sources": sources}
    built = [{"unique_id": "model.shop.wide", "status": "success"}]
    results = {"args": {"which": "build"}, "results": built}
    files = {"target/manifest.json": json.dumps(manifest), "target/run_results.json": json.dumps(results)}
    run_id = ended_run(bolt_simulator, "wide", [SimulatedCommand("dbt build", resources=files)])
    await aarchive_run(run_id, credentials, schedule_name="wide", assets=True)
    run = await latest_flow_run("archive-run")
    (event,) = await asset_events(str(run.id), 2)
    above = [each for each in event["related"] if each["prefect.resource.role"] == "asset"]
    assert len(above) == 75
    told = text_of((await artifacts_of(run.id))["paradime-wide"])
    assert "1 materialised, 0 failed; 1 with only the first 75 upstream nodes (Prefect's limit)" in told


async def asset_events(flow_run_id: str, at_least: int) -> list[dict[str, Any]]:
    """Return the materialisations of a flow run, once they have arrived."""
    import anyio

    body = {
        "filter": {
            "event": {"prefix": ["prefect.asset.materialization"]},
            "related": {"id": [f"prefect.flow-run.{flow_run_id}"]},
        },
        "limit": 50,
    }
    events: list[dict[str, Any]] = []
    async with get_client() as client:
        for _ in range(100):
            events = (await client.request("POST", "/events/filter", json=body)).json()["events"]
            if len(events) >= at_least - 1:
                break
            await anyio.sleep(0.2)
    return events


async def test_an_older_artifact_is_no_error(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Files that are not dbt artifacts are reported, and the rest is archived."""
    command = replace(
        recorded_commands("success")[1],
        resources={"target/run_results.json": b"<html>", "target/manifest.json": json.dumps([1]).encode()},
    )
    run_id = ended_run(bolt_simulator, "garbage", [command])
    await aarchive_run(run_id, credentials, schedule_name="garbage")
    text = text_of((await archived())["paradime-garbage"])
    assert "# ✅ garbage: SUCCESS" in text
    assert "## Not archived" in text
