"""Where the time went, as bars made of text: what a person takes in at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from paradime_blocks.text import fence, one_line, shorten

_WIDTH: Final = 26
_ROWS: Final = 60
_LABEL: Final = 24
_WORK: Final = "█"
_WAIT: Final = "░"
# A gap smaller than this share of the whole is no bar that could be seen.
_LEAST_GAP: Final = 0.01
_LEAST_GAP_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Span:
    """Something that took time.

    Attributes:
        start: When it began.
        end: When it ended.
        label: What it was; remote text.
        told: A word about how it ended.
        waiting: Whether nothing was done but wait.
    """

    start: datetime
    end: datetime
    label: str
    told: str = ""
    waiting: bool = False

    @property
    def seconds(self) -> float:
        """How long it took; never less than nothing."""
        return max(0.0, (self.end - self.start).total_seconds())


def render_timeline(spans: Sequence[Span]) -> str:
    """Render spans one below the other on a common axis, in a fenced block.

    The bar comes last in each line: the fonts of some pages draw its blocks wider or narrower than letters.

    Args:
        spans: What took time, in any order; what lies between is shown as waiting.

    Returns:
        Markdown; empty if there is nothing that took time.
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
            lines.append(_row(shorten(span.seconds), span.label, f"{bar} {span.told}"))
    hidden = [span.seconds for n, span in enumerate(ordered) if n not in longest]
    if hidden:
        lines.append(_row(shorten(sum(hidden)), f"{len(hidden)} more, shorter ones", ""))
    return fence("\n".join(lines))


def _row(seconds: str, label: str, bar: str) -> str:
    return f"{seconds:>7} {one_line(label, _LABEL):<{_LABEL}} {bar}".rstrip()


def _with_gaps(ordered: Sequence[Span]) -> list[Span]:
    """The spans with what lies between them, where that is long enough to be seen."""
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
    # A bar shows, however short the time was.
    length = max(1, min(round((offset + share) * _WIDTH), _WIDTH) - start)
    return " " * start + (_WAIT if waiting else _WORK) * length
