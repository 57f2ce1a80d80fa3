from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from support.bench import Bench

# More would only wait for one another: a flow run's process imports Prefect first.
AT_ONCE = 4


@pytest.fixture(scope="session")
def outcomes(bench: Bench, request: pytest.FixtureRequest) -> Iterator[dict[object, Future[object]]]:
    """What `play(bench, case)` of a case's module returns for each case that is to be tested, several played at once.

    Most of a case is waiting. One that comes later is played while an earlier one is judged.
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
