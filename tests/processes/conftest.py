from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from support.bench import Bench

# More would slow each other down: a flow run's process first imports Prefect.
AT_ONCE = 4


@pytest.fixture(scope="session")
def outcomes(bench: Bench, request: pytest.FixtureRequest) -> Iterator[dict[object, Future[object]]]:
    """The result of `play(bench, case)` for each selected case; several cases run at the same time.

    A case mostly waits, so later cases run while an earlier one is checked.
    """
    pool = ThreadPoolExecutor(AT_ONCE)
    played = {}
    for item in request.session.items:
        if "outcomes" in item.fixturenames and item.get_closest_marker("processes"):
            case = item.callspec.params["case"]
            played[case] = pool.submit(item.module.play, bench, case)
    try:
        yield played
    finally:
        pool.shutdown(cancel_futures=True)
