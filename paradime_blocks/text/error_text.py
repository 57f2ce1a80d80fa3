"""Puts the text of an error together: the cause, the details, what to do next, and the facts in brackets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from paradime_blocks.text.rendering import clean, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FACT_CHARACTERS: Final = 200
_LOG_TAIL_CHARACTERS: Final = 1200
_SHORTEST_LOG_TAIL: Final = 300
_FACTS_SHOWN: Final = ("schedule_name", "run_id", "state", "operation", "path", "status_code", "url")
# These facts lead a reader to the Bolt run, so they are never left out.
_FACTS_KEPT: Final = ("run_id", "url")
_FACT_TITLES: Final = {
    "schedule_name": "schedule",
    "run_id": "Bolt run",
    "state": "state in Bolt",
    "status_code": "HTTP status",
}


def error_text(headline: str, details: Sequence[str], guidance: str, facts: Mapping[str, Any]) -> str:
    """Return the whole text of an error: one line if there are no details.

    Args:
        headline: What happened. It comes first, because Prefect's pages cut long texts.
        details: Further lines.
        guidance: What to do next; empty if this is unknown.
        facts: The facts about the error. Only those that help a reader are shown.
    """
    parts = [headline if details else _as_sentence(headline), *details, guidance, _context(facts)]
    return ("\n" if details else " ").join(part for part in parts if part)


def one_line_text(headline: str, guidance: str, facts: Mapping[str, Any], limit: int) -> str:
    """Return an error as one line. If the line is too long, the headline is cut, so that what to do next stays.

    Facts that do not fit are left out, but never the run's id and its URL.

    Prefect logs a state as Python writes it. A text with both kinds of quotes would get backslashes, so the line has
    only single quotes.
    """
    guidance = one_line(guidance, limit // 2)
    shown = {name: facts.get(name) for name in _FACTS_KEPT}
    rest = f"{guidance} {_context(shown)}".strip()
    room = max(limit // 2, limit - 2 - len(headline))
    for name in _FACTS_SHOWN:
        if name not in shown and f"'{facts.get(name)}'" not in headline:
            longer = f"{guidance} {_context({**shown, name: facts.get(name)})}".strip()
            if len(longer) <= room:
                shown[name], rest = facts.get(name), longer
    told = _as_sentence(one_line(headline, limit - 2 - len(rest)))
    return one_line(f"{told} {rest}".replace('"', "'"), limit)


def log_end(log: str | None, shown: Sequence[str]) -> list[str]:
    """Return the end of a command's log as a detail of an error; none if the other details are long already.

    Args:
        log: The log.
        shown: The lines that are shown before the log.
    """
    room = _LOG_TAIL_CHARACTERS - sum(map(len, shown))
    if not log or room < _SHORTEST_LOG_TAIL:
        return []
    return [f"End of the command's log:\n{_last_lines(clean(log), room)}"]


def _as_sentence(text: str) -> str:
    """Return the text with a full stop, so that another sentence can follow. dbt's errors have none."""
    return f"{text}." if text and text[-1].isalnum() else text


def _context(facts: Mapping[str, Any]) -> str:
    shown = [
        f"{_FACT_TITLES.get(name, name)}: {_plain(facts[name])}"
        for name in _FACTS_SHOWN
        if facts.get(name) not in (None, "", ())
    ]
    return f"({', '.join(shown)})" if shown else ""


def _last_lines(text: str, characters: int) -> str:
    """Return the end of a text. If a line begins near the cut, the result begins with that line."""
    end = text[-characters:]
    first, newline, rest = end.partition("\n")
    return rest if len(text) > characters and newline and len(first) < characters // 2 else end


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = ".".join(str(part) for part in value)
    return one_line(str(getattr(value, "value", value)), FACT_CHARACTERS)
