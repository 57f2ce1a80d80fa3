"""Prefect's UI as people see it, in a real browser; a hostile log is shown as text only.

Needs Chromium: Debian's package `chromium`, with `fonts-noto-color-emoji` for the marks (`apt-get update &&
apt-get install -y chromium fonts-noto-color-emoji`). Without it these tests are skipped, except in CI.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from ui.pages import PREFIXES, PrefectPages, chromium, find_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from playwright.sync_api import BrowserContext
    from prefect.client.schemas.objects import FlowRun
    from support.prefect_server import LocalPrefectServer
    from ui.runs import ShownForm, ShownRun

    from paradime_blocks.testing import BoltSimulator

pytestmark = pytest.mark.skipif(
    find_chromium() is None and not os.environ.get("CI"), reason="no Chromium is installed"
)


@dataclass(frozen=True)
class Runs:
    failed: ShownRun
    long: ShownRun
    hostile: ShownRun


# Flows are run and deployed in separate threads: Playwright may run an event loop in this one.


@pytest.fixture(scope="module")
def runs(prefect_server: LocalPrefectServer) -> Runs:
    """The flow runs of the tested pages, created once."""
    from ui.runs import failed_run, hostile_log, long_log

    from paradime_blocks.testing import BoltSimulator
    from paradime_blocks.testing.plugin import complain_about_bad_requests

    with BoltSimulator(speed=20) as simulator, ThreadPoolExecutor() as threads:
        made = [threads.submit(make, simulator) for make in (failed_run, long_log, hostile_log)]
        runs = Runs(*(each.result() for each in made))
    complain_about_bad_requests(simulator)
    return runs


@pytest.fixture(scope="module")
def form(prefect_server: LocalPrefectServer) -> ShownForm:
    """The form that starts `run_schedule`."""
    from ui.runs import run_schedule_form

    with ThreadPoolExecutor() as threads:
        return threads.submit(run_schedule_form).result()


@dataclass(frozen=True)
class OnAWorker:
    """A deployment of `run_schedule`, a worker that runs it, and its Bolt."""

    deployment_id: UUID
    simulator: BoltSimulator

    def newest_run(self) -> FlowRun:
        """Wait for the deployment's newest flow run to end."""
        from ui.runs import newest_run_of

        with ThreadPoolExecutor() as threads:
            return threads.submit(newest_run_of, self.deployment_id).result()


@pytest.fixture(scope="module")
def on_a_worker(
    prefect_server: LocalPrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OnAWorker]:
    from support.processes import Processes, deploy

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.run_schedule import run_schedule

    processes = Processes(tmp_path_factory.mktemp("worker"), prefect_server.env)
    with BoltSimulator(speed=100) as simulator, ThreadPoolExecutor() as threads:
        simulator.add_schedule("daily", commands=["dbt run"])
        try:
            processes.prefect("block", "register", "-m", "paradime_blocks").wait()
            threads.submit(processes.worker, "by-form").result()
            deployed = threads.submit(deploy, run_schedule, "by-form", work_pool="by-form").result()
            yield OnAWorker(deployed, simulator)
        finally:
            processes.stop_all()


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One browser for this module only: other tests could not run an event loop beside it."""
    with chromium() as context:
        yield context


@pytest.fixture(scope="module", params=PREFIXES)
def pages(
    request: pytest.FixtureRequest, prefect_server: LocalPrefectServer, browser: BrowserContext
) -> Iterator[PrefectPages]:
    """Prefect's pages, in both of its user interfaces."""
    with browser.new_page() as page:
        yield PrefectPages(page, prefect_server.ui_url, request.param)


def test_the_summary_shows_the_outcome_and_its_cause_without_a_click(runs: Runs, pages: PrefectPages) -> None:
    pages.open_artifact(runs.failed.artifact_ids["paradime-nightly"])
    expect(pages.page.get_by_role("heading", name="nightly: FAILED")).to_be_visible()
    expect(pages.text("dbt build: model revenue failed: Runtime Error")).to_be_visible()
    expect(pages.text("3 failed, 1 warned, 1 skipped, 15 succeeded")).to_be_visible()
    expect(pages.page.get_by_role("heading", name="Where the time went")).to_be_visible()
    # The run's facts, the commands and the files. What failed in dbt and the decision log are lists.
    expect(pages.page.get_by_role("table")).to_have_count(3)
    expect(pages.page.get_by_role("link", name="dbt build", exact=True)).to_be_visible()
    # Escaped text appears unchanged, also in the text of links.
    expect(pages.page.locator("body")).not_to_contain_text(re.compile(r"\\|&lt;"))


def test_the_dbt_results_show_what_failed(runs: Runs, pages: PrefectPages) -> None:
    pages.open_artifact(runs.failed.artifact_ids["paradime-nightly-dbt-results"])
    expect(pages.page.get_by_text("❌ model revenue", exact=True)).to_be_visible()
    expect(pages.text("Could not convert string 'card' to INT32")).to_be_visible()
    expect(pages.page.get_by_role("heading", name="Slowest")).to_be_visible()


def test_a_commands_log_is_plain_text(runs: Runs, pages: PrefectPages) -> None:
    pages.open_artifact(runs.failed.artifact_ids["paradime-nightly-log-4-dbt-build"])
    log = pages.page.locator("pre").first
    expect(log).to_contain_text("Running with dbt=")
    expect(log).not_to_contain_text("\x1b")


def test_the_flow_run_links_to_each_of_its_artifacts(runs: Runs, pages: PrefectPages) -> None:
    pages.open_flow_run(runs.failed.flow_run_id)
    expect(pages.page.get_by_text("Failed", exact=True).first).to_be_visible()
    pages.choose_tab("Artifacts")
    for artifact_id in runs.failed.artifact_ids.values():
        expect(pages.page.locator(f"a[href$='/artifacts/artifact/{artifact_id}']")).to_be_visible()


def test_the_timeline_draws_each_command_and_the_failed_one_in_red(runs: Runs, pages: PrefectPages) -> None:
    """Prefect draws the timeline as a picture, so its colours are counted; the list below it has the names."""
    pages.open_flow_run(runs.failed.flow_run_id)
    expect(pages.text("7 Task runs")).to_be_visible()
    timeline = pages.page.locator("canvas").first
    expect(timeline).to_be_visible()
    pages.page.wait_for_load_state("networkidle")
    colours = {"red": 0, "green": 0}
    for _ in range(50):
        # The picture is drawn some time after its frame.
        colours = pages.colours_in(timeline.screenshot())
        if min(colours.values()) > 1000:
            break
        pages.page.wait_for_timeout(200)
    assert min(colours.values()) > 1000, colours
    pages.choose_tab("Task Runs")
    for name in ("1 dbt deps", "2 dbt seed", "4 dbt build", "archive"):
        expect(pages.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(pages.text("5 Completed, 2 Failed")).to_be_visible()


def test_a_failed_commands_task_run_shows_its_log(runs: Runs, pages: PrefectPages) -> None:
    pages.open_task_run(runs.failed.task_run_ids["4 dbt build"])
    expect(pages.page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(pages.text("Running with dbt=")).to_be_visible()
    expect(pages.page.locator("body")).not_to_contain_text("Traceback")


def test_a_long_log_shows_its_beginning_and_its_end(runs: Runs, pages: PrefectPages) -> None:
    """A log of 2 MB opens with head and tail, and reports the gap between them."""
    from ui.runs import LONG_LINES

    pages.open_artifact(runs.long.artifact_ids["paradime-long-log-1-dbt-run"])
    expect(pages.text("bytes left out in the middle")).to_be_visible()
    log = pages.page.locator("pre").first.inner_text()
    assert f" 1 of {LONG_LINES} OK" in log
    assert f" {LONG_LINES} of {LONG_LINES} OK" in log
    assert "bytes left out …]" in log
    assert len(log) < 1_000_000


def test_a_hostile_log_has_no_effect_on_the_flow_runs_page(runs: Runs, pages: PrefectPages) -> None:
    pages.open_flow_run(runs.hostile.flow_run_id)
    expect(pages.text("first line of the hostile log")).to_be_visible()
    nothing_acted(pages)


def test_a_hostile_log_has_no_effect_on_an_artifacts_page(runs: Runs, pages: PrefectPages) -> None:
    """No script ran, no image loaded, no link appeared and the layout did not change; the log is shown as text."""
    for key, artifact_id in runs.hostile.artifact_ids.items():
        pages.open_artifact(artifact_id)
        if key.startswith("paradime-hostile-log"):
            log = pages.page.locator("pre").first
            expect(log).to_contain_text("<script>document.title = 'PWNED'")
            expect(log).to_contain_text("# heading")
            expect(log).to_contain_text("last line of the hostile log")
            expect(log).not_to_contain_text(re.compile("[\x1b\x00\u202e]"))
        else:
            # The command's name.
            expect(pages.text("onerror=alert(1)")).to_be_visible()
        nothing_acted(pages)
        if pages.interface == "v1":
            expect(pages.page.locator("a[href*='//evil.test']")).to_have_count(0)
    assert any(key.startswith("paradime-hostile-log") for key in runs.hostile.artifact_ids)


def test_the_form_shows_each_parameter_with_its_help(form: ShownForm, pages: PrefectPages) -> None:
    pages.open_run_form(form.deployment_id)
    for name, help_text in form.help_texts.items():
        expect(pages.page.get_by_text(re.compile(rf"^{name}( \(Optional\))?$")).first).to_be_visible()
        expect(pages.text(help_text)).to_be_visible()


def test_a_person_creates_credentials_and_starts_a_run(on_a_worker: OnAWorker, pages: PrefectPages) -> None:
    """Only forms are used: for a credentials block, then for a run that uses it; a worker runs it successfully."""
    name = f"made-in-{pages.interface}"
    simulator = on_a_worker.simulator
    pages.open_block_form("paradime-credentials")
    pages.fill_in(name, simulator.api_endpoint, simulator.api_key, simulator.api_secret)
    pages.press("Create", "Save")
    expect(pages.page).to_have_url(re.compile(r"/blocks/block/"))
    pages.open_run_form(on_a_worker.deployment_id)
    schedule = pages.page.locator("textarea").first
    schedule.fill("daily")
    # Credentials, the second field, offer a picker of blocks, a text, or None.
    pages.page.get_by_text("str", exact=True).nth(1).click()
    pages.page.locator("textarea").nth(1).fill(name)
    pages.press("Submit")
    expect(pages.page).to_have_url(re.compile(r"tab=Runs"))
    flow_run = on_a_worker.newest_run()
    assert flow_run.state.is_completed(), flow_run.state
    assert flow_run.parameters["credentials"] == name
    pages.open_flow_run(flow_run.id)
    expect(pages.text("Completed")).to_be_visible()


def nothing_acted(pages: PrefectPages) -> None:
    """Check that the hostile log is only text on the open page."""
    page = pages.page
    # By now, it has requested whatever it requests when it is drawn.
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.pwned") is None
    assert "PWNED" not in page.title()
    assert pages.dialogs == []
    assert pages.requests
    assert not [address for address in pages.requests if "evil.test" in address]
    expect(page.locator("iframe")).to_have_count(0)
    expect(page.locator("body")).to_be_visible()
    links = page.locator("a[href]").evaluate_all("links => links.map(link => [link.href, link.innerText])")
    assert links
    assert not [address for address, _ in links if address.startswith("javascript:")]
    # Prefect's log view turns addresses into links, and so does its second interface everywhere; such a
    # link shows its target.
    texts = [text.strip() for address, text in links if "//evil.test" in address]
    assert [text for text in texts if not text.startswith("http://evil.test/")] == []
