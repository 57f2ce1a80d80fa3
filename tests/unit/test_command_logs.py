"""A command's log as an artifact: what it shows, what it cuts, and that a cut log is stored whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from prefect.filesystems import LocalFileSystem

from paradime_blocks.client.ended_commands import SpooledCommand
from paradime_blocks.models import BoltCommand, BoltCommandDetail, BoltRunState, BoltRunStatus
from paradime_blocks.text import LongText
from paradime_blocks.text.redaction import REMOVED, Redactor
from paradime_flows.prefect_api.artifacts import ArtifactWriter
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.command_logs import LogArchive, render_log, shown_streams
from paradime_flows.reporting.file_storage import Storage
from paradime_flows.reporting.run_summary import FileRecord, RunRecord

# Longer texts are in files.
LONG = 5_000
SECRET = "s3cret-value-of-the-key"


def a_command(**streams: str) -> BoltCommandDetail:
    return BoltCommandDetail(id=1, command="dbt run", **streams)


def texts(**streams: str) -> dict[str, LongText]:
    return {name: LongText(text) for name, text in streams.items()}


def rendered(limit: int, **streams: str) -> str:
    return render_log(shown_streams(texts(**streams), limit))


class Written(ArtifactWriter):
    """Stores written files in place of a server."""

    texts: ClassVar[dict[str, str]] = {}

    async def markdown(self, key: str, markdown: str, description: str) -> Any:
        del description
        self.texts[key] = markdown
        return "an-id"


def in_file(text: LongText, folder: Path) -> LongText:
    """The same text in a file, if it is long."""
    if len(text) < LONG:
        return text
    path = folder / f"text-{len(list(folder.iterdir()))}"
    path.write_text(text.whole(), encoding="utf-8", newline="")
    return LongText(path=path)


class OneCommand:
    """A client with the log of one command."""

    def __init__(self, detail: BoltCommandDetail, stdout: LongText | None = None) -> None:
        self.detail = detail
        self.stdout = stdout

    async def spool_bolt_commands(self, command_ids: Any, folder: Path) -> dict[int, SpooledCommand]:
        """Long output is in files, as with the real client."""
        texts = LongText(self.detail.stdout), LongText(self.detail.stderr)
        stdout, stderr = (in_file(each, folder) for each in texts)
        return {command_ids[0]: SpooledCommand(self.detail.resources, self.stdout or stdout, stderr)}


def an_archive(folder: Path | None, limit: int, **options: Any) -> LogArchive:
    """The archive of a run whose only command failed."""
    command = BoltCommand(id=1, command="dbt run", return_code=1)
    record = RunRecord(
        "daily",
        7,
        BoltRunState.FAILED,
        BoltRunStatus(state=BoltRunState.FAILED, commands=[command]),
    )
    storage = folder and Storage(LocalFileSystem(basepath=str(folder)), ["*"], "daily/7")
    settings = ArchiveSettings(log_limit_bytes=limit)
    Written.texts.clear()
    context = ArchiveContext(Written(), record, settings, Redactor([SECRET]), storage or None)
    return LogArchive(context, **options)


async def archived(archive: LogArchive, in_file: LongText | None = None, **streams: str) -> str:
    client: Any = OneCommand(a_command(**streams), in_file)
    await archive.archive(client, 1, archive.context.commands[0])
    return Written.texts["paradime-daily-log-1-dbt-run"]


def lines(text: str, size: int) -> str:
    return f"{text}\n" * (size // (len(text.encode()) + 1))


@pytest.mark.parametrize(
    "stdout, stderr",
    [
        pytest.param(lines("o" * 99, 60_000), lines("e" * 99, 39_000), id="60 kB and 39 kB"),
        pytest.param(lines("o" * 99, 10_000), lines("e" * 99, 90_000), id="10 kB and 90 kB"),
        pytest.param(lines("é" * 49, 50_000), lines("€" * 33, 50_000), id="more bytes than characters"),
        pytest.param("", lines("e" * 99, 100_000), id="one stream alone"),
        pytest.param("\x1b[32m" * 15_000 + "ok\n", lines("e" * 99, 99_000), id="colours take no room"),
    ],
)
async def test_a_log_within_the_limit_is_not_cut(stdout: str, stderr: str) -> None:
    """The limit covers both streams together, in bytes of the text shown."""
    text = rendered(100_000, stdout=stdout, stderr=stderr)
    assert "left out" not in text
    assert len(text.encode()) < 100_200


@pytest.mark.parametrize(
    "stdout, stderr",
    [
        pytest.param(lines("o" * 99, 6_000), lines("e" * 99, 4_100), id="a little too much"),
        pytest.param(lines("é" * 49, 6_000), lines("e" * 99, 6_000), id="both too long"),
        pytest.param(lines("o" * 99, 100_000), lines("e" * 99, 1_000), id="far too much"),
        pytest.param("x" * 30_000, "", id="in one line"),
        pytest.param("head\n" + "x" * 100_000, "", id="in one line, far too much"),
    ],
)
async def test_a_cut_log_is_stored_whole(stdout: str, stderr: str, tmp_path: Path) -> None:
    """If a byte is left out, the stored file has it, and the artifact says where, with a link."""
    text = await archived(an_archive(tmp_path, 10_000), stdout=stdout, stderr=stderr)
    assert "bytes left out in the middle; the whole log is stored as " in text
    assert len(text.encode()) < 11_000
    folder = tmp_path / "daily" / "7" / "1-dbt-run"
    assert (folder / "stdout.log").read_text() == stdout
    assert not stderr or (folder / "stderr.log").read_text() == stderr
    name = "stdout.log" if f"[{folder}/stdout.log]" in text else "stderr.log"
    assert f"[{folder}/{name}]({(folder / name).as_uri()})" in text


async def test_the_shown_and_the_omitted_parts_are_the_whole_log() -> None:
    """The reported number is right, even if only the outer parts were read."""
    for size in (15_000, 500_000):
        text = lines("o" * 99, size)
        (shown,) = shown_streams(texts(stdout=text), 10_000)
        gap = f"\n[… {shown.omitted:,} bytes left out …]\n"
        assert gap in shown.text
        assert len(shown.text.encode()) - len(gap.encode()) + shown.omitted == len(text)


async def test_a_short_stream_is_shown_whole_beside_a_long_one() -> None:
    """A short stderr is shown whole beside a long stdout."""
    text = rendered(10_000, stdout="o\n" * 100_000, stderr="the error\n")
    assert "the error" in text
    assert "**stderr**\n" in text
    assert len(text) < 10_200
    assert rendered(100) == rendered(100, stdout=" \n") == "*The command wrote no log.*"


def test_a_line_of_a_megabyte_is_cut_too() -> None:
    """The limit also holds for a line without an end, and for characters of many bytes."""
    text = rendered(50_000, stdout="é`" * 1_000_000 + "the end")
    assert len(text.encode()) < 51_000
    assert "the end" in text


def test_a_log_of_mostly_colours_reports_its_gap() -> None:
    """After cleaning, less may be left than the limit allows; the gap is still reported."""
    (shown,) = shown_streams(texts(stdout="\x1b[32m\x1b[0m\n" * 100_000), 1000)
    assert f"[… {shown.omitted:,} bytes left out …]" in shown.text
    assert shown.omitted > 500_000


@pytest.mark.parametrize("before", range(0, 40, 3))
async def test_no_secret_remains_where_a_long_log_is_split(before: int, tmp_path: Path) -> None:
    """Pieces end at line ends, so a secret is inside one piece; the stored file has no secret either."""
    text = "." * before + "\n" + f"key {SECRET} and on\n" * 2000
    shown = await archived(an_archive(tmp_path, 1000, piece_characters=37), stdout=text)
    kept = (tmp_path / "daily" / "7" / "1-dbt-run" / "stdout.log").read_text()
    assert kept == text.replace(SECRET, REMOVED)
    assert "s3cret" not in shown
    assert "value-of" not in shown


def test_a_stored_file_without_a_link_is_shown_by_its_address() -> None:
    """An address that a browser cannot open is text without markup."""
    kept = {"stdout.log": FileRecord(1, "stdout.log", stored_as="s3://bucket/a*b*/stdout.log")}
    shown = shown_streams(texts(stdout="x\n" * 1000), 100)
    assert "stored as s3\\://bucket/a\\*b\\*/stdout.log\n" in render_log(shown, kept)


async def test_a_large_log_is_copied_in_pieces(tmp_path: Path) -> None:
    """Archiving needs memory for only a few pieces of a log that the client has written to a file."""
    archive = an_archive(tmp_path, 10_000, piece_characters=20_000)
    stdout = lines("12:00:00  1 of 9 OK created sql table model analytics.orders in 0.92s" * 20, 1_000_000)
    # Memory for imports does not count.
    await archived(archive, stdout="short")
    source = tmp_path / "source"
    source.write_text(stdout)
    tracemalloc.start()
    try:
        await archived(archive, LongText(path=source))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "daily" / "7" / "1-dbt-run" / "stdout.log").stat().st_size == len(stdout)
    # The log itself existed before the count began.
    assert peak < 400_000


async def test_the_end_of_a_log_begins_with_no_half_secret() -> None:
    """This also holds for a last line longer than the part that is read."""
    archive = an_archive(None, 10_000)
    for at in range(0, len(SECRET) + 1, 3):
        await archived(archive, stdout=SECRET + "x" * (20_000 - at))
        assert SECRET[-8:] not in str(archive.last)


async def test_a_few_artifacts_are_written_while_the_next_log_is_fetched() -> None:
    """Not one after the other, and no more than a few, each of which is in memory; one that fails hides no other."""
    archive = an_archive(None, 10_000)
    writing: list[str] = []
    most: list[int] = []
    four = anyio.Event()

    class Slow(Written):
        async def markdown(self, key: str, markdown: str, description: str) -> Any:
            writing.append(key)
            most.append(len(writing))
            if len(writing) == 4:
                four.set()
            await four.wait()
            await anyio.lowlevel.checkpoint()
            writing.remove(key)
            if key.endswith("-log-7-dbt-run"):
                raise ConnectionError("Prefect is out of reach")
            return await super().markdown(key, markdown, description)

    archive.context.writer = Slow()  # type: ignore[assignment]
    async with anyio.create_task_group() as archive.posts:
        for n in range(1, 21):
            await archive.archive(OneCommand(a_command(stdout=f"log {n}")), n, archive.context.commands[0])  # type: ignore[arg-type]
    assert max(most) == 4
    numbers = {int(key.split("-")[3]) for key in Written.texts}
    assert numbers == {*range(1, 21)} - {7}
    assert archive.context.record.problems == ["the log of command 7, dbt run: Prefect is out of reach"]
