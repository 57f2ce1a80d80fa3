r"""Remote text made fit to be shown: cleaned, escaped, fenced, cut.

Logs, messages and names come from Bolt, from dbt and from the warehouse behind it; whoever can write a row
there can write the error message that quotes it. Nothing of it may act on the page, so all of it passes
through here:

    clean      what a terminal would not have printed is gone
    one_line   one line of plain text, for a state message
    cell       one line of inline markdown, or one table cell
    fence      a block, as it stands
    head_and_tail, shorten   sizes and durations that a person can take in

Only backslash escapes and the entities ``&lt; &gt; &amp;`` are used: Prefect's first UI renders markdown
itself, decodes no other entity, and would show ``&#124;`` as it is written.
"""

from __future__ import annotations

import math
import re
from typing import Final

# One character class comes first, so that the search skips clean text quickly; what may follow is told apart
# after it. No part can give back what it took, so one pass is linear. A sequence that is never closed ends
# with its line: it must not swallow the rest of a log.
_UNSEEN: Final = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but tab, newline and carriage return
    r"\u2028\u2029\u202a-\u202e\u2066-\u2069"  # line separators, bidi overrides and isolates
    r"\ud800-\udfff"  # lone surrogates: there is no UTF-8 for them, so no request can carry them
    r"\U000e0000-\U000e007f"  # tags: invisible text
)
# The eight-bit forms of these are only dropped as characters: they are more often half of a badly decoded
# quotation mark, and the rest of its line must stay.
_NOISE: Final = re.compile(
    f"[{_UNSEEN}](?:"
    r"(?<=\x1b)\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|(?<=\x1b)[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?<=\x1b)\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|(?<=\x1b)[ -/]*[0-~]?"  # the two-character ones
    r")?"
)
# Most logs have colours and nothing else of it: for ASCII this is seen many times as fast.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SPECIAL: Final = re.compile(
    r"[&<>\\`*\[\]|~@]"
    r"|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])"  # within a word, as in stg_orders, an underscore means nothing
    r"|:(?=//)|(?<=[wW]{3})\."  # with "@" above: bare addresses are not made links
)
_BLOCK_START: Final = re.compile(r"[#+=-]|[0-9]+[.)](?=\s|$)")
_CHUNK: Final = 1 << 20


def clean(text: str) -> str:
    r"""Remove what a reader could not have seen.

    Args:
        text: Any text, of any size.

    Returns:
        The text without ANSI escape sequences, control characters other than ``\n`` and ``\t``, lone
        surrogates and bidirectional overrides. Of a line that was redrawn with carriage returns, as progress
        bars are, the last state stays.
    """
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if text.isascii() and _CONTROL.search(text) is None:
        return text
    text = _NOISE.sub("", text)
    if "\r" not in text:
        return text
    text = text.replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(_last_drawn(line) for line in text.split("\n"))


def _last_drawn(line: str) -> str:
    """What is left of a line after its carriage returns."""
    line = line.rstrip("\r")
    return line[line.rfind("\r") + 1 :]


def one_line(text: str, limit: int = 200) -> str:
    """Put text on one line of plain text, such as a state message.

    Args:
        text: Any text; line breaks and other white space become single spaces.
        limit: The most characters of the line.
    """
    # Escape codes may be most of a text, so more than the limit is looked at, though never a whole log.
    line = " ".join(clean(text[: limit * 20 + 2000]).split())
    return line if len(line) <= limit else line[: max(0, limit - 1)].rstrip() + "…"


def cell(text: str, limit: int = 200) -> str:
    """Escape text for a markdown table cell or for inline use.

    Args:
        text: Any text; line breaks become spaces.
        limit: The most characters of it that are shown.

    Returns:
        One line of markdown that renders as that text, and as nothing else.
    """
    escaped = _SPECIAL.sub(_escape, one_line(text, limit))
    # At the start of a line these would begin a heading, a list or a rule.
    start = _BLOCK_START.match(escaped)
    if start is None:
        return escaped
    at = start.end() - 1
    return f"{escaped[:at]}\\{escaped[at:]}"


def _escape(match: re.Match[str]) -> str:
    """Defuse what matched, character by character."""
    return "".join(_ENTITIES.get(character, f"\\{character}") for character in match[0])


def fence(text: str, language: str = "text") -> str:
    """Put text in a fenced code block that it can't close.

    Args:
        text: Any text.
        language: The block's language; our own word, never remote text.

    Returns:
        The block, without a line break at its end.
    """
    text = clean(text).rstrip("\n")
    longest = max((len(run[0]) for run in re.finditer("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def head_and_tail(text: str, limit_bytes: int) -> tuple[str, int]:
    """Cut the middle out of a text that is too long.

    The end gets two thirds of the room, since that is where failures are told. Cuts are at line ends where
    one is near; a line longer than the room is cut itself.

    Args:
        text: The text, cleaned before.
        limit_bytes: The size in UTF-8 that the shown text must keep to; the note about the gap alone takes
            about 60.

    Returns:
        The text to show, and how many bytes of the original are not in it.
    """
    total = _size(text, limit_bytes)
    if total <= limit_bytes:
        return text, 0
    room = max(0, limit_bytes - len(_gap(total).encode()))
    head = _head(text, room // 3)
    tail = _tail(text, room - room // 3)
    omitted = total - len(head.encode(errors="replace")) - len(tail.encode(errors="replace"))
    return f"{head}{_gap(omitted)}{tail}", omitted


def _gap(omitted: int) -> str:
    return f"\n[… {omitted:,} bytes left out …]\n"


def _size(text: str, limit_bytes: int) -> int:
    """The text's size in UTF-8, without a second copy of it."""
    if text.isascii():
        return len(text)
    if len(text) * 4 <= limit_bytes:
        return len(text) * 4
    return sum(len(text[at : at + _CHUNK].encode(errors="replace")) for at in range(0, len(text), _CHUNK))


def _head(text: str, room: int) -> str:
    head = text[:room].encode(errors="replace")[:room].decode(errors="ignore")
    end = head.rfind("\n")
    # A line end far back would cost most of the room.
    return head[:end] if end >= len(head) // 2 else head


def _tail(text: str, room: int) -> str:
    if room == 0:
        return ""
    tail = text[-room:].encode(errors="replace")[-room:].decode(errors="ignore")
    start = tail.find("\n") + 1
    return tail[start:] if 0 < start <= len(tail) // 2 else tail


def shorten(seconds: float) -> str:
    """A duration for people: "0.04s", "7.5s", "42s", "3m 12s", "2h 5m", "3d 4h".

    Args:
        seconds: The duration; one that is negative or no number at all gives "?".
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    # The shorter it is, the more its fractions tell; the rounded value decides, so that 59.7 s is a minute.
    if round(seconds, 2) < 1:
        return f"{seconds:.2f}s"
    if round(seconds, 1) < 10:  # noqa: PLR2004
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, secs = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d {hours_left}h"
    if hours:
        return f"{hours}h {minutes_left}m"
    return f"{minutes}m {secs}s" if minutes else f"{secs}s"
