"""The parts of an archive that need no server: keepsakes, links, timeline, logs, summary, asset keys."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem
from recorded import RECORDED

from paradime_blocks.dbt_artifacts import Manifest, ManifestNode
from paradime_blocks.models import BoltAttempt, BoltCommand, BoltCommandDetail, BoltRunState, BoltRunStatus
from paradime_flows.archive_settings import ArchiveSettings
from paradime_flows.artifacts import artifact_key
from paradime_flows.assets import _upstream, asset_key
from paradime_flows.command_logs import render_log
from paradime_flows.dbt_archive import DbtStory, manifest_command
from paradime_flows.keepsakes import Keepsakes, folder_of, safe_path
from paradime_flows.links import link_expiry, safe_url
from paradime_flows.summary import FileRecord, RunRecord, render_summary
from paradime_flows.timeline import Span, render_timeline

NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


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
async def test_a_keepsake_stays_below_its_folder(path: str, tmp_path: Path) -> None:
    """Whatever the remote path says, what is written lies below the run's folder."""
    keepsakes = Keepsakes(LocalFileSystem(basepath=str(tmp_path)), ["*"], folder_of("../..", 7))
    where = await keepsakes.write(1, "dbt run ../..", path, b"content")
    written = (tmp_path / keepsakes.folder / where).resolve()
    assert written.read_bytes() == b"content"
    assert (tmp_path / "_" / "7" / "1-dbt-run") in written.parents


async def test_two_paths_that_come_to_the_same_are_both_kept(tmp_path: Path) -> None:
    """The second gets a name of its own rather than the first one's place."""
    keepsakes = Keepsakes(LocalFileSystem(basepath=str(tmp_path)), ["*"], "daily/7")
    first = await keepsakes.write(1, "dbt run", "target/a?.json", b"1")
    second = await keepsakes.write(1, "dbt run", "target/a*.json", b"2")
    assert first == "1-dbt-run/target/a_.json"
    assert (tmp_path / "daily" / "7" / first).read_bytes() == b"1"
    assert (tmp_path / "daily" / "7" / second).read_bytes() == b"2"


def test_patterns_fit_names_and_paths() -> None:
    """A pattern without a folder fits the file wherever it is."""
    keepsakes = Keepsakes(LocalFileSystem(), ["manifest.json", "target/run/*"], "x")
    assert keepsakes.wanted("target/manifest.json")
    assert keepsakes.wanted("target/run/a.sql")
    assert not keepsakes.wanted("target/catalog.json")


def test_ordinary_names_are_kept_as_they_are() -> None:
    """What is safe is not touched."""
    assert safe_path("target", "run_results.json") == "target/run_results.json"
    assert folder_of("Täglich um 6", 9) == "Täglich um 6/9"


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
def test_a_signed_link_tells_when_it_expires(url: str, expected: datetime | None) -> None:
    """Each store says it in its own way; what cannot be read is not known."""
    assert link_expiry(url) == expected


def test_only_web_addresses_become_links_and_cannot_end_them() -> None:
    """A script is no link; brackets, quotes and bars are encoded, and the signature stays what it was."""
    assert safe_url("javascript:alert(1)") is None
    assert safe_url("data:text/html,x") is None
    assert (
        safe_url('https://x.test/a)b|c d"<?X=1%2F2&s=a+b')
        == "https://x.test/a%29b%7Cc%20d%22%3C?X=1%2F2&s=a+b"
    )


def test_the_timeline_draws_waits_and_marks_what_failed() -> None:
    """Bars stand on a common axis, also what lies between them; the shortest still shows."""
    spans = [
        Span(NOON, after(30), "(starting)", waiting=True),
        Span(after(30), after(30.1), "1 dbt deps"),
        Span(after(60), after(120), "2 dbt build", told="FAILED"),
    ]
    lines = render_timeline(spans).splitlines()
    assert lines[0] == "```text"
    assert lines[1].endswith("2m 0s")
    assert "░░░" in lines[2]
    assert "█" in lines[3]
    assert "(between)" in lines[4]
    assert lines[5].endswith("█ FAILED")
    assert lines[5].startswith("  1m 0s 2 dbt build")
    assert render_timeline([]) == render_timeline([Span(NOON, NOON, "nothing")]) == ""


def test_a_timeline_of_thousands_is_cut_to_the_longest() -> None:
    """What is not shown is counted."""
    spans = [Span(after(n), after(n + 1 + n / 5000), f"{n}") for n in range(2000)]
    lines = render_timeline(spans).splitlines()
    assert len(lines) < 70
    assert "more, shorter" in lines[-2]


def test_a_log_that_is_cut_shares_its_room_between_the_streams() -> None:
    """A short stderr is shown as a whole beside a long stdout."""
    command = BoltCommandDetail(id=1, command="dbt run", stdout="o\n" * 100_000, stderr="the error\n")
    text = render_log(command, 10_000)
    assert "the error" in text
    assert "**stderr**\n" in text
    assert len(text) < 10_200
    assert render_log(BoltCommandDetail(id=1, command="x"), 100) == "*The command wrote no log.*"


def test_a_megabyte_in_one_line_is_cut_as_well() -> None:
    """The limit holds for a line without an end, and for text of many bytes a character."""
    command = BoltCommandDetail(id=1, command="dbt run", stdout="é`" * 1_000_000)
    assert len(render_log(command, 50_000).encode()) < 51_000


def test_the_summary_escapes_whatever_bolt_says() -> None:
    """Names, commands, paths and notes cannot break the tables, or be markup."""
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
        files=[FileRecord(1, evil, page="https://x.test/1", kept=evil)],
        kept_under=evil,
        kept_by=evil,
        problems=[evil],
        results_told=evil,
        log_pages={1: "https://x.test/2"},
    )
    text = render_summary(record)
    head, fenced, rest = text.split("```")
    assert "<img" in fenced
    for part in (head, rest):
        assert "<img" not in part
        assert not re.search(r"(?<!\\)\]\(javascript", part)
        assert "\n# head" not in part


def test_a_summary_stays_small_whatever_there_is_to_tell() -> None:
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


def test_keys_stay_apart_when_they_are_cut_or_empty() -> None:
    """A long key ends with a hash of the whole, and so does one of which nothing is left."""
    long = ["x" * 200 + end for end in "ab"]
    keys = {artifact_key("paradime", name) for name in [*long, "🎉", "🎈", "daily"]}
    assert len(keys) == 5
    assert "paradime-daily" in keys
    assert all(len(key) <= 120 for key in keys)


def test_asset_keys_are_prefect_dbts() -> None:
    """The adapter, then the relation without its quotes and with slashes."""
    assert asset_key("snowflake", '"ANALYTICS"."core"."orders"') == "snowflake://ANALYTICS/core/orders"


def test_an_ephemeral_model_is_replaced_by_what_it_is_made_from() -> None:
    """Upstream is what lies in the warehouse, each once; what opted out is left out."""

    def node(kind: str, relation: str | None, *depends_on: str, enabled: bool = True) -> ManifestNode:
        return ManifestNode(kind, "shop", None, None, relation, depends_on, assets_enabled=enabled)

    manifest = Manifest(
        {
            "model.a": node("model", "a", "model.eph", "source.s", "model.off"),
            "model.eph": node("model", None, "seed.s", "model.eph2"),
            "model.eph2": node("model", None, "model.eph", "seed.s", "source.none"),
            "model.off": node("model", "off", enabled=False),
            "seed.s": node("seed", "seed_s"),
            "source.s": node("source", "src"),
            "source.none": node("source", None),
        }
    )
    assert [above.relation_name for above in _upstream(manifest.nodes["model.a"], manifest)] == [
        "seed_s",
        "src",
    ]


def test_the_manifest_of_the_command_that_failed_is_read() -> None:
    """It alone knows the compiled path of what failed in it; without a failure the last knows most."""
    commands = [BoltCommand(id=n, command="dbt", return_code=code) for n, code in ((1, 0), (2, 1), (3, 0))]
    assert manifest_command(commands, [1, 2, 3]) == 2
    assert manifest_command(commands, [1, 3]) == 3
    assert manifest_command(commands, []) is None


def test_results_that_a_later_command_left_lying_count_once() -> None:
    """A command that wrote no results of its own may hand on those of the command before."""
    content = (RECORDED / "failure/2-dbt-seed/resources/target/run_results.json").read_bytes()
    story = DbtStory()
    story.read("results", content, "dbt seed")
    story.read("results", content, "dbt docs serve")
    assert [part.command for part in story.parts] == ["dbt seed"]
    assert story.told() == "4 succeeded"


async def test_settings_outlive_their_process_as_plain_data() -> None:
    """They stand on the flow run as JSON; a block that is not saved is known to its own process only."""
    filesystem = LocalFileSystem()
    settings = await ArchiveSettings.resolve(keepsakes=filesystem, keep=["*.json"], assets=True)
    assert await settings.filesystem() is filesystem
    again = ArchiveSettings.model_validate_json(settings.model_dump_json())
    assert (again.keep, again.assets) == (["*.json"], True)
    assert await again.filesystem() is None
