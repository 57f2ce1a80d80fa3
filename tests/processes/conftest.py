from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from support.bench import Bench
    from support.prefect_server import LocalPrefectServer

# More would only wait for one another: a flow run's process imports Prefect first.
AT_ONCE = 4


@pytest.fixture(scope="session")
def bench(prefect_server: LocalPrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Starts flow runs as processes; its worker and its `serve` program are shared by all tests."""
    from support.bench import Bench

    bench = Bench(tmp_path_factory.mktemp("bench"), prefect_server.env)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture(scope="module")
def outcomes(bench: Bench, request: pytest.FixtureRequest) -> Iterator[dict[object, Future[object]]]:
    """What the module's `play(bench, case)` returns for each case that is to be tested, several played at once.

    Most of a case is waiting. One that comes later is played while an earlier one is judged.
    """
    play = request.module.play
    cases = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.module is request.module and "case" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {case: pool.submit(play, bench, case) for case in cases}
    finally:
        pool.shutdown(cancel_futures=True)
