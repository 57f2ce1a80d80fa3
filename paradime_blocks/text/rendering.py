r"""Prepares text from outside for display: removes control characters, escapes markdown, cuts long text.

Logs, messages and names come from Bolt, from dbt and from the warehouse. Anyone who can write a row in the
warehouse can write a part of an error message, since the message quotes the row. Prefect's UI must show such text
literally, not as markdown or HTML. So all such text goes through these functions:

    clean      removes what a terminal does not show
    one_line   one line of plain text, for a state message
    cell       one line of inline markdown, or one table cell
    fence      a code block that shows the text unchanged
    head_and_tail, shorten   sizes and durations that people can read

The only escapes are backslashes and the entities ``&lt; &gt; &amp;``: Prefect's V1 UI renders markdown itself,
decodes no other entity, and would show ``&#124;`` literally.
"""

from __future__ import annotations

import math
import re
from typing import Final

# The pattern begins with one character class, so that the search skips clean text quickly; the rest of a sequence
# is matched after it. There is no backtracking, so the time is linear. An escape sequence without an end is removed
# only to the end of its line: the rest of the log must stay.
_UNSEEN: Final = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters except tab, newline and carriage return
    r"\u2028\u2029\u202a-\u202e\u2066-\u2069"  # line separators, bidi overrides and isolates
    r"\ud800-\udfff"  # lone surrogates: UTF-8 cannot encode them
    r"\U000e0000-\U000e007f"  # tags: invisible text
)
# Of an eight-bit escape sequence, only the first character is removed. Such a character is more often a part of a
# wrongly decoded quotation mark, and then the rest of the line must stay.
_NOISE: Final = re.compile(
    f"[{_UNSEEN}](?:"
    r"(?<=\x1b)\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|(?<=\x1b)[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?<=\x1b)\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|(?<=\x1b)[ -/]*[0-~]?"  # escape sequences of two characters
    r")?"
)
# Most logs have colour codes and no other escape sequences. For ASCII text, this check is many times as fast.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SPECIAL: Final = re.compile(
    r"[&<>\\`*\[\]|~@]"
    r"|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])"  # an underscore inside a word, as in stg_orders, means nothing
    r"|:(?=//)|(?<=[wW]{3})\."  # with "@" above: no links for plain URLs and e-mail addresses
)
_BLOCK_START: Final = re.compile(r"[#+=-]|[0-9]+[.)](?=\s|$)")
_CHUNK: Final = 1 << 20


def clean(text: str) -> str:
    r"""Remove the characters that a terminal does not show.

    Args:
        text: Any text, of any size.

    Returns:
        The text without ANSI escape sequences, control characters other than ``\n`` and ``\t``, lone
        surrogates and bidirectional overrides. If a line was redrawn with carriage returns, as a progress bar is, only
        the last state of the line stays.
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
    """Return the last state of a line that was redrawn with carriage returns."""
    line = line.rstrip("\r")
    return line[line.rfind("\r") + 1 :]


def one_line(text: str, limit: int = 200) -> str:
    """Return a text as one line of plain text, for example for a state message.

    Args:
        text: Any text; line breaks and other white space become single spaces.
        limit: The largest length of the line, in characters.
    """
    # Escape codes may be most of a text, so more characters than the limit are read, but never a whole log.
    line = " ".join(clean(text[: limit * 20 + 2000]).split())
    return line if len(line) <= limit else line[: max(0, limit - 1)].rstrip() + "…"


def cell(text: str, limit: int = 200) -> str:
    """Escape text for a cell of a markdown table, or for use inside a line.

    Args:
        text: Any text; line breaks become spaces.
        limit: How many characters of the text are shown at most.

    Returns:
        One line of markdown, which a browser shows as exactly this text.
    """
    escaped = _SPECIAL.sub(_escape, one_line(text, limit))
    # At the start of a line these characters would begin a heading, a list or a horizontal line.
    start = _BLOCK_START.match(escaped)
    if start is None:
        return escaped
    at = start.end() - 1
    return f"{escaped[:at]}\\{escaped[at:]}"


def _escape(match: re.Match[str]) -> str:
    """Escape each character of the match."""
    return "".join(_ENTITIES.get(character, f"\\{character}") for character in match[0])


def fence(text: str, language: str = "text") -> str:
    """Put text in a fenced code block, which the text itself cannot end.

    Args:
        text: Any text.
        language: The language of the code block. The language comes from our own code, never from Bolt or dbt.

    Returns:
        The code block, without a line break at its end.
    """
    text = clean(text).rstrip("\n")
    longest = max((len(run[0]) for run in re.finditer("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def head_and_tail(text: str, limit_bytes: int) -> tuple[str, int]:
    """Cut the middle out of a text that is too long.

    Two thirds of the size are for the end of the text, since a log reports failures at its end. The text is cut at the
    end of a line, if a line ends near the cut. Otherwise a line is cut in two.

    Args:
        text: The text, after `clean`.
        limit_bytes: The largest size of the result, in bytes of UTF-8. This size includes the note about the missing
            part.

    Returns:
        The text to show, and the number of bytes of the original that are missing.
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
    """Return the text's size in UTF-8, without a copy of the whole text."""
    if text.isascii():
        return len(text)
    if len(text) * 4 <= limit_bytes:
        return len(text) * 4
    return sum(len(text[at : at + _CHUNK].encode(errors="replace")) for at in range(0, len(text), _CHUNK))


def _head(text: str, room: int) -> str:
    head = text[:room].encode(errors="replace")[:room].decode(errors="ignore")
    end = head.rfind("\n")
    # If the last line end is in the first half, a cut there would lose most of the text.
    return head[:end] if end >= len(head) // 2 else head


def _tail(text: str, room: int) -> str:
    if room == 0:
        return ""
    tail = text[-room:].encode(errors="replace")[-room:].decode(errors="ignore")
    start = tail.find("\n") + 1
    return tail[start:] if 0 < start <= len(tail) // 2 else tail


def shorten(seconds: float) -> str:
    """Return a duration that people can read: "0.04s", "7.5s", "42s", "3m 12s", "2h 5m", "3d 4h".

    Args:
        seconds: The duration. If it is negative, infinite or not a number, the result is "?".
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    # A shorter duration has more decimals. The rounded value decides, so that 59.7 s becomes "1m 0s".
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
