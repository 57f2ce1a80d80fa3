"""Files that commands write, and the links to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def link(simulator: BoltSimulator, ask: Ask) -> Callable[..., str]:
    """Makes a run write a file, and returns the link to it."""

    def link(content: Any, path: str = "target/manifest.json") -> str:
        command = SimulatedCommand("dbt run", resources={path: content})
        simulator.add_schedule("daily", [command], setup_commands=False)
        simulator.start_run("daily")
        simulator.clock.advance(60)
        (resource,) = simulator.runs("daily")[-1].commands[0].resources
        url = ask("query($id: Int!) { boltResourceUrl(resourceId: $id) { url } }", id=resource.id)
        return str(url["boltResourceUrl"]["url"])

    return link


def test_a_resource_may_be_text_bytes_or_a_file(
    http: httpx.Client, link: Callable[..., str], tmp_path: Path
) -> None:
    """All are sent unchanged; a file is streamed."""
    file = tmp_path / "big.bin"
    file.write_bytes(bytes(range(256)) * 20_000)
    assert http.get(link('{"a": 1}')).json() == {"a": 1}
    assert http.get(link(b"\x00\xff", "target/graph.gpickle")).content == b"\x00\xff"
    assert http.get(link(file, "logs/dbt log #1.bin")).content == file.read_bytes()


def test_a_link_expires(simulator: BoltSimulator, http: httpx.Client, link: Callable[..., str]) -> None:
    """After fifteen virtual minutes, the response is 403."""
    url = link("{}")
    simulator.clock.advance(899)
    assert http.get(url).status_code == 200
    simulator.clock.advance(2)
    assert http.get(url).status_code == 403


@pytest.mark.parametrize(
    "old, new",
    [
        pytest.param("X-Signature=", "X-Signature=0", id="signature"),
        pytest.param("X-Expires=", "X-Expires=9", id="expiry"),
        pytest.param("manifest", "catalog", id="path"),
        pytest.param("?X-Expires", "?Nothing", id="nothing"),
    ],
)
def test_a_forged_link_is_refused(http: httpx.Client, link: Callable[..., str], old: str, new: str) -> None:
    """Neither the file nor the time in a link can be changed."""
    assert http.get(link("{}").replace(old, new)).status_code == 403


@pytest.mark.parametrize("header", ["X-API-KEY", "X-API-SECRET", "Authorization", "X-Paradime-Workspace"])
def test_credentials_sent_to_storage_are_a_bad_request(
    simulator: BoltSimulator, http: httpx.Client, link: Callable[..., str], header: str
) -> None:
    """No Paradime header may reach an object store: status 400, and the pytest fixture fails the test."""
    assert http.get(link("{}"), headers={header: "x"}).status_code == 400
    (bad,) = simulator.bad_requests
    assert "sent to object storage" in str(bad.not_understood)


def test_downloads_are_counted_and_can_fail(
    simulator: BoltSimulator, http: httpx.Client, link: Callable[..., str]
) -> None:
    """Their name is "resource"."""
    url = link("0123456789")
    simulator.inject(
        faults.Status(503, operation="resource"),
        faults.Truncated(operation="resource", after_acting=True, mid_transfer=True),
    )
    assert http.get(url).status_code == 503
    with pytest.raises(httpx.TransportError):
        http.get(url)
    assert http.get(url).text == "0123456789"
    assert simulator.count("resource") == 3


def test_dbt_commands_write_dbts_usual_files(simulator: BoltSimulator) -> None:
    """A manifest and run results, and the files of docs and source commands; nothing for set-up commands."""
    simulator.add_schedule("daily", ["dbt run", "dbt docs generate", "dbt source freshness", "echo hello"])
    simulator.start_run("daily")
    simulator.clock.advance(60)
    left = [{Path(each.path).stem for each in command.resources} for command in simulator.runs()[0].commands]
    usual = {"manifest", "run_results"}
    assert left == [set(), set(), usual, usual | {"catalog"}, usual | {"sources"}, set()]
    for command in simulator.runs()[0].commands:
        for resource in command.resources:
            json.loads(str(resource.content))
