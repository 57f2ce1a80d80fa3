"""Shows how long each part of a Bolt run took, as bars that are made of text characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paradime_blocks.text import fence, one_line, shorten

_WIDTH: Final = 26
_ROWS: Final = 60
_LABEL: Final = 24
# Prefect's V1 UI has a font without block characters: they would be wider than a space, and move the bars.
_WORK: Final = "="
_WAIT: Final = "."
# A gap that is shorter than this share of the whole time is not shown.
_LEAST_GAP: Final = 0.01
_LEAST_GAP_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Span:
    """One bar of the timeline: an earlier attempt, a command, or a wait before or between commands.

    Attributes:
        start: The time at which the part started.
        end: The time at which the part ended.
        label: The name of the part. The name may come from Bolt.
        note: A word about how the part ended.
        waiting: Whether the part was only a time of waiting.
    """

    start: datetime
    end: datetime
    label: str
    note: str = ""
    waiting: bool = False

    @property
    def seconds(self) -> float:
        """How long the part took, in seconds. The number is never negative."""
        return max(0.0, (self.end - self.start).total_seconds())


def render_timeline(spans: Sequence[Span]) -> str:
    """Render the bars of a timeline, one bar below the other, in a code block of markdown.

    Each line ends with its bar, because some fonts draw the characters of a bar wider or narrower than letters.

    Args:
        spans: The bars, in any order. The time between two bars is shown as a wait.

    Returns:
        The markdown text. The text is empty if no time has passed.
    """
    ordered = _with_gaps(sorted(spans, key=lambda span: (span.start, span.end)))
    if not ordered:
        return ""
    begin, end = ordered[0].start, max(span.end for span in ordered)
    total = (end - begin).total_seconds()
    if total <= 0:
        return ""
    longest = set(sorted(range(len(ordered)), key=lambda n: -ordered[n].seconds)[:_ROWS])
    lines = [_row("", "", f"0{shorten(total):>{_WIDTH - 1}}")]
    for n, span in enumerate(ordered):
        if n in longest:
            offset = (span.start - begin).total_seconds() / total
            bar = _bar(offset, span.seconds / total, waiting=span.waiting)
            lines.append(_row(shorten(span.seconds), span.label, f"{bar} {span.note}"))
    hidden = [span.seconds for n, span in enumerate(ordered) if n not in longest]
    if hidden:
        lines.append(_row(shorten(sum(hidden)), f"{len(hidden)} more, shorter ones", ""))
    return fence("\n".join(lines))


def _row(seconds: str, label: str, bar: str) -> str:
    return f"{seconds:>7} {one_line(label, _LABEL):<{_LABEL}} {bar}".rstrip()


def _with_gaps(ordered: Sequence[Span]) -> list[Span]:
    """Return the bars, and a bar for each gap between two bars that is long enough to be seen."""
    if not ordered:
        return []
    total = (max(span.end for span in ordered) - ordered[0].start).total_seconds()
    found: list[Span] = []
    reached = ordered[0].start
    for span in ordered:
        gap = (span.start - reached).total_seconds()
        if gap > max(_LEAST_GAP_SECONDS, total * _LEAST_GAP):
            found.append(Span(reached, span.start, "(between)", waiting=True))
        found.append(span)
        reached = max(reached, span.end)
    return found


def _bar(offset: float, share: float, *, waiting: bool) -> str:
    start = min(int(offset * _WIDTH), _WIDTH - 1)
    # A bar is always visible, however short the time was.
    length = max(1, min(round((offset + share) * _WIDTH), _WIDTH) - start)
    return " " * start + (_WAIT if waiting else _WORK) * length
