"""The parts of an archive that need no server: storage, links, timeline, summary, keys, settings."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem
from recorded import RECORDED

from paradime_blocks.models import BoltAttempt, BoltCommand, BoltDbtResult, BoltRunState, BoltRunStatus
from paradime_blocks.text.redaction import Redactor
from paradime_flows.prefect_api.artifacts import ArtifactWriter, artifact_key
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.dbt_results import DbtStory, manifest_command
from paradime_flows.reporting.file_storage import Storage, folder_of, safe_path
from paradime_flows.reporting.links import link_expiry, safe_url
from paradime_flows.reporting.run_summary import FileRecord, RunRecord, render_summary
from paradime_flows.reporting.timeline import Span, render_timeline

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def file_with(folder: Path, content: bytes) -> Path:
    """A file with that content, outside of the storage folder."""
    path = folder / "source"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../../../etc/passwd", id="up"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a/../../../b", id="up later"),
        pytest.param("..\\..\\b", id="windows"),
        pytest.param("~root/x", id="home"),
        pytest.param("..", id="only up"),
        pytest.param("", id="empty"),
        pytest.param("a\x00b\nc/d", id="control characters"),
        pytest.param("x" * 5000, id="long"),
        pytest.param(". /./ .. /x", id="dots and spaces"),
    ],
)
async def test_a_stored_file_stays_below_its_folder(path: str, tmp_path: Path) -> None:
    """Whatever the remote path is, the file is written below the run's folder."""
    storage = Storage(LocalFileSystem(basepath=str(tmp_path)), ["*"], folder_of("../..", 7))
    kept = await storage.write(1, "dbt run ../..", path, file_with(tmp_path, b"content"))
    written = (tmp_path / storage.folder / kept.where).resolve()
    assert written.read_bytes() == b"content"
    assert (tmp_path / "_" / "7" / "1-dbt-run") in written.parents


async def test_two_paths_with_the_same_stored_name_are_both_stored(tmp_path: Path) -> None:
    """The second file gets another name and does not replace the first."""
    storage = Storage(LocalFileSystem(basepath=str(tmp_path)), ["*"], "daily/7")
    first = await storage.write(1, "dbt run", "target/a?.json", file_with(tmp_path, b"1"))
    second = await storage.write(1, "dbt run", "target/a*.json", file_with(tmp_path, b"2"))
    assert first.where == "1-dbt-run/target/a_.json"
    assert first.address == str(tmp_path / "daily" / "7" / first.where)
    assert (tmp_path / "daily" / "7" / first.where).read_bytes() == b"1"
    assert (tmp_path / "daily" / "7" / second.where).read_bytes() == b"2"


def test_patterns_match_names_and_paths() -> None:
    """A pattern without a folder matches the file in any folder."""
    storage = Storage(LocalFileSystem(), ["manifest.json", "target/run/*"], "x")
    assert storage.wanted("target/manifest.json")
    assert storage.wanted("target/run/a.sql")
    assert not storage.wanted("target/catalog.json")


def test_safe_names_do_not_change() -> None:
    """A safe name does not change."""
    assert safe_path("target", "run_results.json") == "target/run_results.json"
    assert folder_of("Täglich um 6", 9) == "Täglich um 6/9"


@pytest.mark.parametrize("character", ["x", "é", "売", "\U0001f4be"])
def test_a_long_name_is_cut_to_what_file_systems_take(character: str) -> None:
    """They count bytes, 255 at most, of which a few are left for a number."""
    name = safe_path(character * 300)
    assert len(name.encode()) <= 240
    assert set(name) <= {character, "_"}
    assert len(name) == min(100, 240 // len(name[0].encode()))


@pytest.mark.parametrize(
    "url, expected",
    [
        pytest.param(
            "https://x.test/a?X-Amz-Date=20261124T110000Z&X-Amz-Expires=3600&X-Amz-Signature=a", NOON, id="s3"
        ),
        pytest.param("https://x.test/a?Expires=1795521600&Signature=b", NOON, id="s3 v2, gcs v2, cloudfront"),
        pytest.param("https://x.test/a?X-Goog-Date=20261124T115900Z&X-Goog-Expires=60", NOON, id="gcs"),
        pytest.param("https://x.test/a?sv=1&se=2026-11-24T12%3A00%3A00Z&sig=c", NOON, id="azure"),
        pytest.param("https://x.test/a?X-Amz-Date=x&X-Amz-Expires=y", None, id="nonsense"),
        pytest.param("https://x.test/a?Expires=1e400", None, id="infinite"),
        pytest.param("https://x.test/a", None, id="no signature"),
        pytest.param("https://[x.test/a?se=1", None, id="no address"),
    ],
)
def test_the_expiry_of_a_signed_link_is_read(url: str, expected: datetime | None) -> None:
    """Each store has its own format; a date that cannot be read is unknown."""
    assert link_expiry(url) == expected


def test_only_web_addresses_become_links_and_are_escaped() -> None:
    """A script is no link; brackets, quotes and bars are encoded, and the signature does not change."""
    assert safe_url("javascript:alert(1)") is None
    assert safe_url("data:text/html,x") is None
    assert (
        safe_url('https://x.test/a)b|c d"<?X=1%2F2&s=a+b')
        == "https://x.test/a%29b%7Cc%20d%22%3C?X=1%2F2&s=a+b"
    )


def test_the_timeline_shows_waits_and_failures() -> None:
    """All bars, and the waits between them, share an axis; the shortest bar still shows."""
    spans = [
        Span(NOON, after(30), "(starting)", waiting=True),
        Span(after(30), after(30.1), "1 dbt deps"),
        Span(after(60), after(120), "2 dbt build", note="FAILED"),
    ]
    lines = render_timeline(spans).splitlines()
    assert lines[0] == "```text"
    assert lines[1].endswith("2m 0s")
    assert "..." in lines[2]
    assert lines[3].endswith("=")
    assert "(between)" in lines[4]
    assert lines[5].endswith("= FAILED")
    assert lines[5].startswith("  1m 0s 2 dbt build")
    assert render_timeline([]) == render_timeline([Span(NOON, NOON, "nothing")]) == ""


def test_a_timeline_of_thousands_is_cut_to_the_longest() -> None:
    """The rest is counted."""
    spans = [Span(after(n), after(n + 1 + n / 5000), f"{n}") for n in range(2000)]
    lines = render_timeline(spans).splitlines()
    assert len(lines) < 70
    assert "more, shorter" in lines[-2]


def test_the_summary_escapes_all_text_from_bolt() -> None:
    """Names, commands, paths and notes cannot break the tables or become markup."""
    evil = "<img src=x onerror=alert(1)> | [a](javascript:1) `x` **b**\n# head"
    command = BoltCommand(id=1, command=evil, start_dttm=NOON, end_dttm=after(5), return_code=1)
    record = RunRecord(
        schedule_name=evil,
        run_id=7,
        state=BoltRunState.FAILED,
        status=BoltRunStatus(state=BoltRunState.FAILED, commands=[command]),
        branch=evil,
        git=evil,
        actor=evil,
        outcome=evil,
        cause=evil,
        attempts=[BoltAttempt(run_id=6, state=BoltRunState(evil))],
        notes=[(evil, evil)],
        files=[FileRecord(1, evil, page="https://x.test/1", stored_as=evil)],
        stored_under=evil,
        storage_block=evil,
        problems=[evil],
        results_counts=evil,
        log_pages={1: "https://x.test/2"},
    )
    text = render_summary(record)
    head, fenced, rest = text.split("```")
    assert "<img" in fenced
    for part in (head, rest):
        assert "<img" not in part
        assert not re.search(r"(?<!\\)\]\(javascript", part)
        assert "\n# head" not in part


def test_a_summary_says_who_triggered_the_run() -> None:
    """Bolt shows every trigger of a flow run as one by the API."""
    own = RunRecord(
        "daily", 7, actor="API", flow_run_page="https://x.test/1", dbt=BoltDbtResult(rows_affected=1300)
    )
    text = render_summary(own)
    assert "| Triggered by | [a Prefect flow run](https://x.test/1) (in Bolt: API) |" in text
    assert "| Rows | 1,300 affected |" in text
    assert "| Cost |" not in text
    assert "| Triggered by | Ada |" in render_summary(RunRecord("daily", 7, actor="Ada"))


def test_a_summary_stays_small_whatever_its_input() -> None:
    """Thousands of commands, files and notes are cut and counted."""
    commands = [BoltCommand(id=n, command=f"dbt run {n}", return_code=0) for n in range(5000)]
    record = RunRecord(
        schedule_name="daily",
        run_id=1,
        state=BoltRunState.SUCCESS,
        status=BoltRunStatus(state=BoltRunState.SUCCESS, commands=commands),
        files=[FileRecord(n, f"target/{n}.json") for n in range(1, 5000)],
        notes=[("2026-11-24T12:00:00+00:00", "note")] * 5000,
    )
    text = render_summary(record)
    assert len(text) < 100_000
    assert "… and 4,800 more commands" in text
    assert "… and 4,799 more files" in text


def test_keys_stay_different_when_they_are_cut_or_empty() -> None:
    """A long key ends with a hash of the whole text, and so does a key of which nothing is left."""
    long = ["x" * 200 + end for end in "ab"]
    keys = {artifact_key("paradime", name) for name in [*long, "🎉", "🎈", "daily"]}
    assert len(keys) == 5
    assert "paradime-daily" in keys
    assert all(len(key) <= 120 for key in keys)


def test_no_two_schedules_share_a_key() -> None:
    """A name that is a valid key stays as it is; capitals, spaces and marks are distinguished by a hash."""
    names = ["daily-run", "daily_run", "Daily Run", "daily run", "Daily-Run", "daily.run", "daily--run"]
    keys = [artifact_key("paradime", name) for name in names]
    assert keys[0] == "paradime-daily-run"
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch("paradime-daily-run-[0-9a-f]{8}", key) for key in keys[1:])


@pytest.mark.parametrize(
    "name, other",
    [
        pytest.param("daily dbt results", ("paradime", "daily", "dbt results"), id="results"),
        pytest.param("daily-dbt-results", ("paradime", "daily", "dbt results"), id="results as a slug"),
        pytest.param("daily-log-1-dbt-run", ("paradime", "daily", "log", "1", "dbt run"), id="log"),
        pytest.param("daily-links", ("paradime", "daily", "links"), id="links"),
        pytest.param("run-7", ("paradime", "run 7"), id="a run without a schedule's name"),
        pytest.param("pipeline-x", ("paradime-pipeline", "x"), id="pipeline"),
        pytest.param("progress-x", ("paradime-progress", "x"), id="progress"),
        pytest.param("inspect-7", ("paradime-inspect", "7"), id="inspect"),
    ],
)
def test_no_schedule_has_the_key_of_another_kind(name: str, other: tuple[str, ...]) -> None:
    """Whatever a schedule's name is, its summary does not share a key with another's results, logs or links."""
    assert artifact_key("paradime", name) != artifact_key(other[0], *other[1:])
    assert artifact_key("paradime", "orphans") != "paradime-orphans"


def test_the_keys_of_usual_names_are_plain() -> None:
    """They are those of the README's table."""
    assert artifact_key("paradime", "daily", "dbt results") == "paradime-daily-dbt-results"
    assert artifact_key("paradime", "orders-2024-backfill") == "paradime-orders-2024-backfill"
    assert artifact_key("paradime", "run 76001") == "paradime-run-76001"


def test_two_commands_whose_keys_would_be_equal_get_different_keys() -> None:
    """Each command's log has its own history; the same command gets the same key again."""
    context = ArchiveContext(
        ArtifactWriter(), RunRecord("daily", 7), ArchiveSettings(), Redactor(["no secret"])
    )
    keys = [context.key("log", "1", command) for command in ("a_b.json", "a-b.json", "a_b.json")]
    assert keys[0] == keys[2] == "paradime-daily-log-1-a-b-json"
    assert re.fullmatch("paradime-daily-log-1-a-b-json-[0-9a-f]{8}", keys[1])


def test_the_requested_branch_is_shown_only_for_our_own_runs() -> None:
    """If another client started a run, the requested branch is unknown here."""
    assert "Branch or commit" not in render_summary(RunRecord("daily", 7))
    assert "the schedule's own" in render_summary(RunRecord("daily", 7, triggered_at=NOON))
    assert "feature" in render_summary(RunRecord("daily", 7, branch="feature"))


def test_the_manifest_of_the_command_that_failed_is_read() -> None:
    """Only its manifest has the compiled path of its failed node; without a failure, the last manifest knows most."""
    commands = [BoltCommand(id=n, command="dbt", return_code=code) for n, code in ((1, 0), (2, 1), (3, 0))]
    assert manifest_command(commands, [1, 2, 3]) == 2
    assert manifest_command(commands, [1, 3]) == 3
    assert manifest_command(commands, []) is None


def test_results_shown_again_by_a_later_command_count_once() -> None:
    """A command that wrote no results may still show those of the command before."""
    content = (RECORDED / "failure/2-dbt-seed/resources/target/run_results.json").read_bytes()
    story = DbtStory()
    story.read("results", content, "dbt seed")
    story.read("results", content, "dbt docs serve")
    assert [part.command for part in story.parts] == ["dbt seed"]
    assert story.counts() == "4 succeeded"


@pytest.mark.parametrize("generated_at", [None, "2026-11-24T12:00:00Z"])
def test_stale_results_count_for_the_command_that_wrote_them(generated_at: str | None) -> None:
    """This holds even for results without a date, such as dbt Fusion's."""
    node = {"unique_id": "model.p.m", "status": "error", "message": "boom"}
    metadata = {} if generated_at is None else {"generated_at": generated_at}
    document = {"metadata": metadata, "args": {"which": "build"}, "results": [node]}
    story = DbtStory()
    story.read("results", json.dumps(document).encode(), "dbt build")
    story.read("results", json.dumps(document).encode(), "dbt docs generate")
    assert [part.command for part in story.parts] == ["dbt build"]
    assert (story.cause() or "").startswith("dbt build: model m failed: boom")


async def test_settings_outlive_their_process_as_plain_data() -> None:
    """They are stored on the flow run as JSON; a block that is not saved is known only to its own process."""
    filesystem = LocalFileSystem()
    settings = await ArchiveSettings.resolve(
        {"storage": filesystem, "storage_patterns": ["*.json"], "assets": True}
    )
    assert await settings.filesystem() is filesystem
    again = ArchiveSettings.model_validate_json(settings.model_dump_json())
    assert (again.storage_patterns, again.assets) == (["*.json"], True)
    assert await again.filesystem() is None
