"""Fixtures for the simulator's own tests: they use a real socket, and time stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator

Ask = Callable[..., dict[str, Any]]


def credentials(simulator: BoltSimulator) -> dict[str, str]:
    return {"X-API-KEY": simulator.api_key, "X-API-SECRET": simulator.api_secret}


@pytest.fixture
def simulator() -> Iterator[BoltSimulator]:
    """A simulator whose time moves only on request."""
    with BoltSimulator(speed=0) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    # Creating a client takes most of a second, for its certificates: one is enough for all tests.
    with httpx.Client(timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def post_to(http: httpx.Client) -> Callable[..., httpx.Response]:
    """Sends a document to a simulator, and returns the HTTP response."""

    def post_to(simulator: BoltSimulator, query: str, **variables: Any) -> httpx.Response:
        payload = {"query": query, "variables": variables}
        return http.post(simulator.api_endpoint, json=payload, headers=credentials(simulator))

    return post_to


@pytest.fixture
def post(simulator: BoltSimulator, post_to: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
    """Sends a document to the test's simulator, and returns the HTTP response."""

    def post(query: str, **variables: Any) -> httpx.Response:
        return post_to(simulator, query, **variables)

    return post


@pytest.fixture
def ask(post: Callable[..., httpx.Response]) -> Ask:
    """Sends a document, and returns the data of its response, which must have no errors."""

    def ask(query: str, **variables: Any) -> dict[str, Any]:
        answer = post(query, **variables).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    return ask


@pytest.fixture
def refused(post: Callable[..., httpx.Response]) -> Callable[..., str]:
    """Sends a document that must be refused, and returns the error's message."""

    def refused(query: str, **variables: Any) -> str:
        answer = post(query, **variables).json()
        assert answer["errors"], answer
        return str(answer["errors"][0]["message"])

    return refused


@pytest.fixture
def trigger(ask: Ask) -> Callable[..., int]:
    """Triggers a schedule, and returns the run id."""

    def trigger(name: str = "daily") -> int:
        return int(
            ask("mutation($n: String) { triggerBoltRun(scheduleName: $n) { runId } }", n=name)[
                "triggerBoltRun"
            ]["runId"]
        )

    return trigger
