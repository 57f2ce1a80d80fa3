"""Which credentials the simulator accepts, and what they allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator

READ = {"query": '{ boltScheduleName(scheduleName: "daily") { ok } }'}
TRIGGER = {"query": 'mutation { triggerBoltRun(scheduleName: "daily") { runId } }'}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"X-API-KEY": "k"}, id="no secret"),
        pytest.param({"X-API-KEY": "k", "X-API-SECRET": "wrong"}, id="wrong secret"),
        pytest.param({"X-API-KEY": "wrong", "X-API-SECRET": "s"}, id="wrong key"),
        pytest.param({"Authorization": "Bearer s"}, id="the secret as a token"),
        pytest.param(
            {"X-API-KEY": "k", "X-API-SECRET": "ß".encode("latin-1").decode("latin-1")}, id="odd letters"
        ),
    ],
)
def test_wrong_credentials_are_answered_401(http: httpx.Client, headers: dict[str, str]) -> None:
    """Nothing is executed, and the request does not count."""
    with BoltSimulator(api_key="k", api_secret="s") as simulator:
        simulator.add_schedule("daily")
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        assert http.post(simulator.api_endpoint, json=TRIGGER, headers=encoded).status_code == 401
        assert simulator.runs() == []
        assert simulator.count("triggerBoltRun") == 0
        assert len(simulator.requests) == 1
        assert simulator.bad_requests == []


@pytest.mark.parametrize(
    "token, headers, status",
    [
        pytest.param("prdm_wsp_1", {"Authorization": "Bearer prdm_wsp_1"}, 200, id="workspace token"),
        pytest.param("prdm_wsp_1", {"Authorization": "Bearer prdm_wsp_2"}, 401, id="wrong token"),
        pytest.param(
            "prdm_wsp_1", {"X-API-KEY": "", "X-API-SECRET": "prdm_wsp_1"}, 401, id="token as a secret"
        ),
        pytest.param(
            "prdm_cmp_1", {"Authorization": "Bearer prdm_cmp_1"}, 403, id="company token, no workspace"
        ),
        pytest.param(
            "prdm_cmp_1",
            {"Authorization": "Bearer prdm_cmp_1", "X-Paradime-Workspace": "w2"},
            403,
            id="wrong workspace",
        ),
        pytest.param(
            "prdm_cmp_1",
            {"Authorization": "Bearer prdm_cmp_1", "X-Paradime-Workspace": "w1"},
            200,
            id="company token",
        ),
    ],
)
def test_tokens_go_into_the_authorization_header(
    http: httpx.Client, token: str, headers: dict[str, str], status: int
) -> None:
    """A company token must also select its workspace."""
    with BoltSimulator(bearer=token, workspace_uid="w1") as simulator:
        simulator.add_schedule("daily")
        assert http.post(simulator.api_endpoint, json=READ, headers=headers).status_code == status


def test_the_environment_fits_the_credentials() -> None:
    """Key and secret, or a token and its workspace."""
    with BoltSimulator() as simulator:
        assert simulator.environment() == {
            "PARADIME_API_ENDPOINT": simulator.api_endpoint,
            "PARADIME_API_KEY": simulator.api_key,
            "PARADIME_API_SECRET": simulator.api_secret,
        }
    with BoltSimulator(bearer="prdm_cmp_1", workspace_uid="w1") as simulator:
        assert simulator.environment() == {
            "PARADIME_API_ENDPOINT": simulator.api_endpoint,
            "PARADIME_API_SECRET": "prdm_cmp_1",
            "PARADIME_WORKSPACE_UID": "w1",
        }


@pytest.mark.parametrize("read_only, status", [(True, 403), ("status", 403), ("graphql", 200)])
def test_a_read_only_key_reads_and_changes_nothing(
    post_to: Callable[..., httpx.Response], read_only: Any, status: int
) -> None:
    """Reads work; a mutation gets status 403 or a GraphQL error, and has no effect."""
    with BoltSimulator(read_only=read_only) as simulator:
        simulator.add_schedule("daily")
        assert post_to(simulator, READ["query"]).json() == {"data": {"boltScheduleName": {"ok": True}}}
        response = post_to(simulator, TRIGGER["query"])
        assert response.status_code == status
        assert "do not have permission" in response.json()["errors"][0]["message"]
        assert simulator.runs() == []


def test_an_unknown_address_is_not_found(simulator: BoltSimulator, http: httpx.Client) -> None:
    """A workspace that does not exist has no endpoint."""
    assert http.post(f"{simulator.url}/api/v1/other/graphql", json=READ).status_code == 404
    assert http.get(simulator.api_endpoint).status_code == 404
    assert simulator.bad_requests == []


@pytest.mark.parametrize("read_only, status", [(False, 200), ("status", 403), ("graphql", 200)])
def test_a_skipped_mutation_is_refused_by_its_kind_or_not_at_all(
    post_to: Callable[..., httpx.Response], read_only: Any, status: int
) -> None:
    """GraphQL never executes or counts a field that @skip leaves out."""
    with BoltSimulator(read_only=read_only) as simulator:
        response = post_to(simulator, "mutation { cancelBoltRun(scheduleRunId: 1) @skip(if: true) { ok } }")
        assert response.status_code == status
        assert status == 403 or response.json() == {"data": {}}
        assert simulator.count("cancelBoltRun") == 0
