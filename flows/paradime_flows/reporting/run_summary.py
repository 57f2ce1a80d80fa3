"""Renders the summary of a Bolt run as markdown, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final

from paradime_blocks.models import (
    BoltAttempt,
    BoltCommand,
    BoltDbtResult,
    BoltRunState,
    BoltRunStatus,
    BoltUsualDuration,
    run_url,
)
from paradime_blocks.text import cell, one_line, shorten
from paradime_flows.reporting.dbt_failures import cost_text, render_failed, rows_text
from paradime_flows.reporting.links import markdown_link
from paradime_flows.reporting.markdown import and_more, bounded_list, moment, size, table
from paradime_flows.reporting.timeline import Span, render_timeline

_MARKS: Final = {
    BoltRunState.SUCCESS: "✅",
    BoltRunState.FAILED: "❌",
    BoltRunState.ERROR: "❌",
    BoltRunState.CANCELED: "🛑",
    BoltRunState.SKIPPED: "⏭️",
}
# The number of the schedule's newest runs that are read. They show who triggered the Bolt run, and the usual duration.
RUNS_READ: Final = 50
_ROWS: Final = 200
# Prefect's pages do not break lines in tables. A long command would move the other columns out of the window.
_COMMAND_CHARACTERS: Final = 56
_PATH_CHARACTERS: Final = 120
_NOTES_BYTES: Final = 200_000


@dataclass
class FileRecord:
    """A file that a command of the Bolt run wrote, and where a person can open the file.

    Attributes:
        n: The command's number in its Bolt run.
        path: The file's path, as Bolt returns it.
        page: The page of the artifact that contains the link to the file.
        expires_at: The time at which the link to the file expires.
        size: The file's size in bytes, if the file was fetched.
        stored_as: The full address of the stored copy; None if no copy is stored.
        stored_url: A link to the stored copy; None if a browser cannot open the copy.
    """

    n: int
    path: str
    page: str | None = None
    expires_at: datetime | None = None
    size: int | None = None
    stored_as: str | None = None
    stored_url: str | None = None


@dataclass
class RunRecord:
    """The facts about a Bolt run that the archive and the summary show.

    Attributes:
        schedule_name: The name of the Bolt run's schedule; None if the schedule is unknown.
        run_id: The id of the Bolt run; None if no Bolt run was started.
        state: The state of the Bolt run when Bolt last returned the state.
        status: The status of the Bolt run, with its commands, when Bolt last returned the status.
        branch: The branch or commit that the trigger requested. None if the trigger requested no branch, or if the
            requested branch is not known.
        git: The branch and commit that the Bolt run checked out, as Bolt returns them.
        actor: Who or what triggered the Bolt run, as Bolt returns it.
        flow_run_page: The page, in Prefect's UI, of the flow run that triggered the Bolt run.
        triggered_at: The time at which the trigger was sent.
        outcome: A sentence that says how the Bolt run ended for the flow.
        cause: A sentence that says why the Bolt run failed. The sentence comes from dbt's results or from the log.
        attempts: The earlier Bolt runs, which this Bolt run retries, oldest first.
        notes: The entries of the decision log. Each entry has a time and a text.
        results_page: The page of the artifact with dbt's results.
        results_counts: The number of dbt nodes with each status, as one line of text.
        dbt: The dbt results as data, so that a flow can decide from the results what to do next.
        usual: How long Bolt runs of the schedule usually take.
        log_pages: The pages of the log artifacts. The key is the command's number.
        files: The files that the commands wrote.
        stored_under: The address of the folder that contains the stored files.
        storage_block: The reference of the storage block, as `type/name`; None if the block is not saved.
        assets_counts: The number of assets that were reported to Prefect, as one line of text.
        problems: The parts that could not be archived, and why.
    """

    schedule_name: str | None
    run_id: int | None = None
    state: BoltRunState | None = None
    status: BoltRunStatus | None = None
    branch: str | None = None
    git: str | None = None
    actor: str | None = None
    flow_run_page: str | None = None
    triggered_at: datetime | None = None
    outcome: str | None = None
    cause: str | None = None
    attempts: Sequence[BoltAttempt] = ()
    notes: Sequence[tuple[str, str]] = ()
    results_page: str | None = None
    results_counts: str | None = None
    dbt: BoltDbtResult = field(default_factory=BoltDbtResult)
    usual: BoltUsualDuration | None = None
    log_pages: dict[int, str] = field(default_factory=dict)
    files: list[FileRecord] = field(default_factory=list)
    stored_under: str | None = None
    storage_block: str | None = None
    assets_counts: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name of the Bolt run's schedule. If the schedule is unknown, a name with the id of the Bolt run."""
        return self.schedule_name or (f"run {self.run_id}" if self.run_id else "unknown schedule")


def render_summary(record: RunRecord, now: datetime | None = None) -> str:
    """Return the summary of a Bolt run as markdown. Text from Bolt is escaped.

    Args:
        record: The facts about the Bolt run.
        now: The present time. If the Bolt run has not ended, its timeline ends at this time.
    """
    now = now or datetime.now(timezone.utc)
    state = str(record.state) if record.state is not None else "no run"
    mark = _MARKS.get(record.state, "⏳") if record.state is not None else "❔"
    parts = [f"# {mark} {cell(record.title)}: {cell(state)}"]
    if record.cause:
        parts.append(f"**{cell(record.cause, 600)}**")
    if record.outcome:
        parts.append(cell(record.outcome, 600))
    first, *facts = [(name, value) for name, value in _facts(record) if value]
    parts.append(table(first, facts))
    failed = render_failed(record.dbt)
    if failed:
        parts += ["## Failed in dbt", *failed]
    timeline = render_timeline(_spans(record, now))
    if timeline:
        parts += ["## Where the time went", timeline]
    if record.status is not None and record.status.commands:
        commands = list(enumerate(record.status.commands, 1))
        over = record.status.state.is_terminal
        rows = [_command_row(n, each, record.log_pages.get(n), over=over) for n, each in commands[:_ROWS]]
        head = ("", "Command, with its log", "Code", "Started (UTC)", "Took")
        parts += ["## Commands", table(head, rows), *and_more(len(commands) - _ROWS, "commands")]
    if record.attempts:
        parts += ["## Attempts", _attempts(record)]
    if record.files:
        parts += ["## Files", *_files(record)]
    if record.notes:
        entries = [(f"{_clock(at)} UTC", note) for at, note in list(record.notes)[-_ROWS:]]
        parts += ["## What happened", *bounded_list(entries, _NOTES_BYTES, "entries")]
    if record.problems:
        parts.append("## Not archived")
        parts.append("\n".join(f"- {cell(problem, 400)}" for problem in record.problems[:_ROWS]))
    return "\n\n".join(parts) + "\n"


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    run = "none" if record.run_id is None else f"[{record.run_id}]({run_url(record.run_id)})"
    facts = [("Bolt run", run)]
    if record.flow_run_page:
        in_bolt = f" (in Bolt: {cell(record.actor)})" if record.actor else ""
        facts.append(("Triggered by", f"[a Prefect flow run]({record.flow_run_page}){in_bolt}"))
    else:
        facts.append(("Triggered by", cell(record.actor or "")))
    # The requested branch is known only if this flow run triggered the Bolt run.
    requested = record.branch or ("the schedule's own" if record.triggered_at else "")
    facts.append(("Branch or commit", cell(requested)))
    facts.append(("Checked out", cell(record.git) if record.git else ""))
    status = record.status
    if status is not None:
        facts.append(("Started (UTC)", moment(status.started_at)))
        facts.append(("Ended (UTC)", moment(status.ended_at)))
        if status.started_at and status.ended_at:
            facts.append(("Duration", shorten((status.ended_at - status.started_at).total_seconds())))
    facts.append(("Usual duration", _usual(record.usual) if record.usual else ""))
    if record.results_counts:
        counts = cell(record.results_counts)
        facts.append(
            ("dbt", f"{counts}: [results]({record.results_page})" if record.results_page else counts)
        )
    facts.append(("Rows", rows_text(record.dbt)))
    facts.append(("Cost", cost_text(record.dbt)))
    facts.append(("Assets", cell(record.assets_counts) if record.assets_counts else ""))
    return facts


def _usual(usual: BoltUsualDuration) -> str:
    text = f"{shorten(usual.seconds)} (median of {usual.runs} runs)"
    if usual.difference_seconds is None:
        return text
    off = usual.difference_seconds
    return f"{text}; this run took {shorten(abs(off))} {'longer' if off > 0 else 'less'}"


def _spans(record: RunRecord, now: datetime) -> list[Span]:
    """Return the bars of the timeline: earlier attempts, the wait for the first command, and the commands."""
    spans = [
        Span(attempt.started_at, attempt.ended_at, f"run {attempt.run_id}", note=str(attempt.state))
        for attempt in record.attempts
        if attempt.started_at and attempt.ended_at
    ]
    status = record.status
    if status is None:
        return spans
    began = status.started_at
    if record.triggered_at and began:
        # Our clock and Bolt's clock may differ. The wait does not begin before the end of the earlier attempt.
        start = max([record.triggered_at, *(span.end for span in spans)])
        if start < began:
            spans.append(Span(start, began, "(starting)", waiting=True))
    for n, command in enumerate(status.commands, 1):
        end = command.end_dttm or (None if status.state.is_terminal else now)
        if command.start_dttm and end:
            note = "FAILED" if command.failed else ("running" if command.end_dttm is None else "")
            spans.append(Span(command.start_dttm, end, f"{n} {one_line(command.command)}", note=note))
    return spans


def _command_row(n: int, command: BoltCommand, page: str | None, *, over: bool) -> tuple[str, ...]:
    code = "" if command.return_code is None else str(command.return_code)
    # A command without a return code is still running, or was stopped with its Bolt run.
    unfinished = "🛑" if over else "⏳"
    mark = unfinished if command.return_code is None else ("❌" if command.failed else "✅")
    seconds = command.duration_seconds
    return (
        f"{mark} {n}",
        markdown_link(command.command, page, _COMMAND_CHARACTERS, "log"),
        code,
        "" if command.start_dttm is None else f"{command.start_dttm.astimezone(timezone.utc):%H:%M:%S}",
        "" if seconds is None else shorten(seconds),
    )


def _attempts(record: RunRecord) -> str:
    last = (
        []
        if record.run_id is None or record.state is None
        else [_attempt_of(record, record.run_id, record.state)]
    )
    rows = [
        (
            str(n),
            f"[{attempt.run_id}]({attempt.url})",
            f"{_MARKS.get(attempt.state, '⏳')} {cell(str(attempt.state))}",
            moment(attempt.started_at),
            shorten((attempt.ended_at - attempt.started_at).total_seconds())
            if attempt.started_at and attempt.ended_at
            else "",
        )
        for n, attempt in enumerate([*record.attempts, *last], 1)
    ]
    return table(("", "Bolt run", "State", "Started (UTC)", "Duration"), rows[-_ROWS:])


def _attempt_of(record: RunRecord, run_id: int, state: BoltRunState) -> BoltAttempt:
    status = record.status
    return BoltAttempt(
        run_id=run_id,
        state=state,
        started_at=status.started_at if status else None,
        ended_at=status.ended_at if status else None,
    )


def _files(record: RunRecord) -> list[str]:
    stored = any(file.stored_as for file in record.files)
    rows = []
    for file in record.files[:_ROWS]:
        row = [
            str(file.n),
            markdown_link(file.path, file.page, _PATH_CHARACTERS, "link"),
            "" if file.size is None else size(file.size),
            moment(file.expires_at, seconds=False),
        ]
        row.append(markdown_link(file.stored_as, file.stored_url, 400, "open") if file.stored_as else "")
        rows.append(row if stored else row[:-1])
    linked = "File, with its link" if any(file.page for file in record.files) else "File"
    head = ["Command", linked, "Size", "Link expires (UTC)", "Stored as"]
    parts = [table(head if stored else head[:-1], rows), *and_more(len(record.files) - _ROWS, "files")]
    if stored and record.stored_under:
        by = f", through the block {cell(record.storage_block)}" if record.storage_block else ""
        parts.append(f"Stored under {cell(record.stored_under, 400)}{by}.")
    return parts


def _clock(at: str) -> str:
    """Return the time of an entry of the decision log in the format of the page."""
    try:
        return moment(datetime.fromisoformat(at))
    except ValueError:
        return at
