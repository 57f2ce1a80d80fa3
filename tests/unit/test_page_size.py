"""Full pages of a log are told from others, although Bolt's page size is unknown."""

from __future__ import annotations

import pytest

from paradime_blocks.client.log_pages import PageSize


def requests(limit: int, lines_per_pause: list[int], printed_at_once: int = 0) -> list[int]:
    """How many pages each round needs, if so many lines are new at its beginning, and some more at each request."""
    size, rounds, waiting = PageSize(), [], 0
    for lines in lines_per_pause:
        waiting += lines
        pages, at_once = 0, False
        while True:
            page = min(limit, waiting)
            waiting += printed_at_once - page
            pages += 1
            at_once = size.may_be_full(page, at_once=at_once)
            if not page or not at_once:
                break
        rounds.append(pages)
    return rounds


def test_a_steady_output_needs_a_page_each_time() -> None:
    """Only the first page is tried to be full."""
    assert requests(5000, [1790, 1810, 1800, 1805, 1795, 1802], 18) == [2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("lines", [[1800] * 10, [1700, 1900] * 5])
def test_an_output_of_several_pages_is_fetched_in_each_round(lines) -> None:
    """Each round reads all that is there: at most one page more than it fills."""
    assert max(requests(500, lines, 18)) <= 5
    assert sum(requests(500, lines, 18)) >= sum(lines) / 500


def test_a_page_that_ends_by_chance_at_the_limit_does_not_slow_the_rest() -> None:
    """It looked as if it were not full. Two pages of the same size show the limit."""
    found = requests(500, [500, 1800, 1800, 1800, 1800], 0)
    assert sum(found) * 500 >= sum([500, 1800, 1800, 1800, 1800]) - 500
    assert found[-1] >= 4


def test_few_lines_never_make_a_full_page() -> None:
    """A command that keeps printing a little is not asked again at once."""
    assert requests(500, [30, 60, 90, 90, 90], 9) == [1] * 5
