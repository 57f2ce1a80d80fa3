"""Remote text is cleaned, escaped, fenced and cut so that it cannot act on a page."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from support.properties import fewer_examples

from paradime_blocks.text.rendering import cell, clean, fence, head_and_tail, one_line, shorten

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

# Text that has markdown, HTML and terminal codes more often than random text has.
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.text(alphabet=st.characters(), max_size=4),
        st.sampled_from(
            [
                "|",
                "\\",
                "\\|",
                "`",
                "```",
                "~~~",
                "*",
                "**",
                "_",
                "__",
                "~~",
                "\n",
                "\r",
                "\r\n",
                "\t",
                " ",
                "    ",
                "<b>",
                "</td>",
                "<script>alert(1)</script>",
                "<!--",
                "-->",
                "<http://a.b>",
                "&lt;",
                "&#124;",
                "&",
                "[x](javascript:alert(1))",
                "![x](http://a.b/c)",
                "[x]: http://a.b",
                "](",
                "http://a.b/c_d",
                "www.a.b",
                "WWW.A.B",
                "a@b.com",
                "# ",
                "- ",
                "+ ",
                "* ",
                "1. ",
                "2) ",
                "> ",
                "---",
                "===",
                "| --- |",
                "stg_orders",
                "a_b",
                "_a_",
                "\x1b[31m",
                "\x1b[0m",
                "\x1b]0;t\x07",
                "\x1b]8;;x\x1b\\",
                "\x1b",
                "\x9b",
                "\x00",
                "\u202e",
                "�",
            ]
        ),
    ),
    max_size=9,
).map("".join)


def tokens(markdown: str) -> list[Token]:
    """All tokens of a rendered text, including those within lines."""
    found = []
    for token in MARKDOWN.parse(markdown):
        found += [token, *(token.children or [])]
    return found


def shown(markdown: str) -> str:
    """The text that a reader sees."""
    return "".join(token.content for token in tokens(markdown) if token.type in {"text", "text_special"})


def delimiters(row: str) -> int:
    """The pipes of a table's row that separate cells: those after an even number of backslashes."""
    return sum(1 for match in re.finditer(r"(\\*)\|", row) if len(match[1]) % 2 == 0)


@pytest.mark.parametrize(
    "text,expected",
    [
        pytest.param("\x1b[0m01:02:03  \x1b[31mERROR\x1b[0m", "01:02:03  ERROR", id="colours"),
        pytest.param("a\x1b[2K\x1b[1Gb", "ab", id="cursor"),
        pytest.param("\x1b]0;title\x07hi", "hi", id="title"),
        pytest.param("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", id="terminal-link"),
        pytest.param("\x1b]0;never closed\nnext line", "\nnext line", id="unclosed-ends-with-its-line"),
        pytest.param("\x1bPq#0\x1b\\d\x1b(Be\x1b=f\x1b", "def", id="other-sequences"),
        pytest.param("a\x00b\x07c\x08d\x7fe", "abcde", id="control-characters"),
        pytest.param("a\tb\nc", "a\tb\nc", id="tab-and-newline-stay"),
        pytest.param("10%\r50%\r100%\nnext", "100%\nnext", id="progress-bar"),
        pytest.param("a\r\nb\r\n", "a\nb\n", id="dos-line-ends"),
        pytest.param("done\r\r\n", "done\n", id="return-at-the-end-erases-nothing"),
        pytest.param("invoice\u202efdp.exe", "invoicefdp.exe", id="bidi-override"),
        pytest.param("a\ud800b\udfffc", "abc", id="lone-surrogates"),
        pytest.param(
            "she said \x9chi\x9d, then left", "she said hi, then left", id="badly-decoded-quotes-lose-no-text"
        ),
        pytest.param("čaj 🍵 שלום", "čaj 🍵 שלום", id="other-scripts-stay"),
    ],
)
def test_clean_keeps_what_a_terminal_would_show(text: str, expected: str) -> None:
    """Escape sequences, control characters and overwritten text are removed; everything else stays."""
    assert clean(text) == expected


@given(HOSTILE)
def test_cleaning_twice_equals_cleaning_once(text: str) -> None:
    """A second cleaning changes nothing, no control character is left, and the text can be sent as UTF-8."""
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", cleaned)
    cleaned.encode()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit",
    [
        pytest.param("plain text\n", id="plain"),
        pytest.param("x", id="one-line"),
        pytest.param("\x1b[", id="unfinished-colours"),
        pytest.param("\x1b]", id="unfinished-titles"),
        pytest.param("ab\r", id="redrawn"),
        pytest.param("a\rb\n", id="redrawn-lines"),
        pytest.param("`", id="backticks"),
    ],
)
def test_the_time_grows_no_faster_than_the_text(unit: str) -> None:
    """A text of this length is done at once; if the time grew with its square, the time limit would be reached."""
    text = unit * (300_000 // len(unit))
    block = fence(head_and_tail(clean(text), 100_000)[0])
    # At most the text, between two fences of as many backticks as it has.
    assert len(block) <= 3 * 100_000 + 100


@given(HOSTILE)
@example("\\|")
@example("a\\")
@example("__init__ and _x")
@example("www.a.b")
def test_a_cell_shows_its_text_and_nothing_else(text: str) -> None:
    """Escaped text, parsed as markdown, is one paragraph of plain text that equals the original."""
    escaped = cell(text, limit=10_000)
    kinds = {token.type for token in tokens(escaped)}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert shown(escaped) == one_line(text, limit=10_000)


@fewer_examples
@given(st.lists(st.tuples(HOSTILE, HOSTILE, HOSTILE), min_size=1, max_size=3))
def test_a_table_keeps_its_columns(rows: list[tuple[str, str, str]]) -> None:
    """Whatever the cells contain, each row has as many separators as the header, and each cell its own text."""
    lines = ["| A | B | C |", "| --- | --- | --- |"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    assert {delimiters(line) for line in lines} == {4}
    found = tokens("\n".join(lines))
    assert [token.type for token in found].count("tr_open") == len(rows) + 1
    inline = [token for token in found if token.type == "inline"]
    texts = ["".join(child.content for child in token.children or []) for token in inline]
    assert texts[3:] == [one_line(value) for row in rows for value in row]


@given(HOSTILE)
def test_a_cell_has_no_active_tag_entity_or_address(text: str) -> None:
    """A cell has no angle bracket, no entity except our three, and no address that becomes a link."""
    escaped = cell(text)
    assert "<" not in escaped
    assert ">" not in escaped
    assert re.findall(r"&(?!lt;|gt;|amp;)", escaped) == []
    assert "http://" not in escaped
    assert "www." not in escaped.lower()
    assert re.search(r"(?<!\\)@", escaped) is None
    assert "\n" not in escaped


def test_a_cell_is_cut_before_it_is_escaped() -> None:
    """The limit counts the visible text, and no escape is cut in two."""
    assert cell("&" * 50, limit=5) == "&amp;" * 4 + "…"
    assert cell("x" * 5, limit=5) == "xxxxx"


@given(HOSTILE)
@example("```\n</code>")
@example("`" * 50)
def test_fenced_text_can_not_close_its_fence(text: str) -> None:
    """A fenced block is exactly one code block with the cleaned text."""
    block = fence(text)
    ticks, *inside, closing = block.split("\n")
    assert not any(line.lstrip().startswith(closing) for line in inside)
    (only,) = MARKDOWN.parse(block)
    assert only.type == "fence"
    assert only.info == "text"
    assert only.content == clean(text).rstrip("\n") + "\n"
    assert ticks == closing + "text"


@given(st.text(alphabet="aé🍵\n", max_size=2000), st.integers(min_value=0, max_value=1500))
def test_the_shown_and_the_omitted_parts_are_the_whole_text(text: str, limit: int) -> None:
    """The shown text respects its limit, starts and ends like the whole text, and states its gap."""
    shown_text, omitted = head_and_tail(text, limit)
    size = len(text.encode())
    if size <= limit:
        assert (shown_text, omitted) == (text, 0)
        return
    head, gap, tail = re.fullmatch(
        r"(.*)(\n\[… [0-9,]+ bytes left out …\]\n)(.*)", shown_text, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert omitted == size - len(head.encode()) - len(tail.encode())
    assert f"{omitted:,}" in gap
    assert len(shown_text.encode()) <= max(limit, len(gap.encode()))


def test_cuts_are_at_line_ends() -> None:
    """A log of ordinary lines is cut between lines on both sides."""
    text = "".join(f"line {number}\n" for number in range(1000))
    shown_text, omitted = head_and_tail(text, 600)
    assert omitted > 0
    kept = [line for line in shown_text.split("\n") if line and "left out" not in line]
    assert set(kept) <= set(text.split("\n"))
    assert kept[0] == "line 0"
    assert kept[-1] == "line 999"


def test_a_line_of_a_megabyte_is_cut_inside_the_line() -> None:
    """One endless line uses the available room; it is neither dropped nor kept whole."""
    shown_text, omitted = head_and_tail("start\n" + "x" * 1_000_000 + "\nend", 10_000)
    assert 9_000 < len(shown_text.encode()) <= 10_000
    assert omitted > 980_000
    assert shown_text.startswith("start\nxxx")
    assert shown_text.endswith("xxx\nend")


@pytest.mark.parametrize(
    "seconds,expected",
    [
        (0, "0.00s"),
        (0.041, "0.04s"),
        (0.999, "1.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.7, "1m 0s"),
        (192, "3m 12s"),
        (3599.6, "1h 0m"),
        (7500, "2h 5m"),
        (3 * 86400 + 4 * 3600, "3d 4h"),
        (-1, "?"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_durations_are_readable(seconds: float, expected: str) -> None:
    """Two units at most, rounded before they are split."""
    assert shorten(seconds) == expected
