"""No secret reaches Prefect in readable form, whatever way the credentials are given. (Trap 11.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.bench import Bench
    from support.prefect_server import LocalPrefectServer

pytestmark = pytest.mark.full

LISTINGS = (
    "flows",
    "flow_runs",
    "task_runs",
    "logs",
    "artifacts",
    "deployments",
    "block_documents",
    "variables",
    "work_pools",
    "events",
)


def everything(api_url: str, flow_run_ids: Iterable[object]) -> dict[str, str]:
    """Everything that Prefect's API lists, as text, and the states and inputs of these flow runs."""
    found = {}
    with httpx.Client(base_url=api_url, timeout=60, trust_env=False) as http:
        for listing in LISTINGS:
            pages = []
            while not pages or len(pages[-1]) == 200:
                body: dict[str, Any] = {"limit": 200, "offset": 200 * len(pages)}
                if listing == "events":
                    body = {"limit": 50}
                answer = http.post(f"/{listing}/filter", json=body)
                answer.raise_for_status()
                page = answer.json()
                pages.append(page if isinstance(page, list) else page["events"])
            found[listing] = str(pages)
        for id_ in flow_run_ids:
            states = http.get("/flow_run_states/", params={"flow_run_id": str(id_)})
            found[f"states of {id_}"] = states.text
            inputs = http.post(f"/flow_runs/{id_}/input/filter", json={"prefix": ""})
            found[f"inputs of {id_}"] = inputs.text
            assert states.is_success
            assert inputs.is_success
    return found


def test_no_secret_is_readable_in_prefect(
    bench: Bench, prefect_server: LocalPrefectServer, tmp_path: Path
) -> None:
    """Given by block name, by block reference, by environment and in code; for runs that succeed and that fail."""
    from paradime_blocks import ParadimeCredentials

    runs = []
    for return_code in (0, 1):
        bolt = bench.bolt()
        bolt.add(seconds=0.2, return_code=return_code)
        bolt.add("again", seconds=0.2, return_code=return_code)
        runs += [
            bench.start("run_schedule", bolt, schedule_name="daily"),
            bench.start("in_code", bolt, schedule_name="again"),
        ]
        by_block = bench.bolt()
        by_block.add(seconds=0.2, return_code=return_code)
        by_block.add("again", seconds=0.2, return_code=return_code)
        block = ParadimeCredentials.load(by_block.credentials)
        reference = {"$ref": {"block_document_id": str(block._block_document_id)}}
        runs += [
            bench.start("run_schedule", by_block, via="worker", schedule_name="daily"),
            bench.start("run_schedule", by_block, via="worker", schedule_name="again", credentials=reference),
        ]
    for run in runs:
        assert run.ended().state.name in {"Completed", "Failed"}
    for run in runs:
        assert run.bolt.simulator.count("triggerBoltRun") == 2, [each.logs() for each in runs]
    secrets = [bolt.simulator.api_secret for bolt in bench.bolts]
    found = everything(prefect_server.api_url, [run.flow_run.id for run in runs])
    assert all(found[listing] != "[[]]" for listing in ("flow_runs", "logs", "artifacts", "deployments"))
    # This proves that the search would find a secret.
    assert runs[0].bolt.simulator.api_endpoint in found["flow_runs"]
    for secret in secrets:
        for where, text in found.items():
            assert secret not in text, f"a secret is readable in Prefect's {where}"
        for log in bench.processes.folder.glob("*.log"):
            assert secret not in log.read_text(errors="replace"), f"a secret is readable in {log.name}"
