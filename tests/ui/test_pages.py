"""What a person sees in Prefect's UI, in a real browser; a hostile log is text there and nothing else.

Needs Chromium: Debian's package `chromium`, with `fonts-noto-color-emoji` for the marks (`apt-get update &&
apt-get install -y chromium fonts-noto-color-emoji`). Without it these tests are skipped, but never in CI.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser, find_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_server import LocalPrefectServer

    from paradime_blocks.testing import BoltSimulator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        find_chromium() is None and not os.environ.get("CI"), reason="no Chromium is installed"
    ),
]

# Both of Prefect's user interfaces, by what they put before the path.
UIS = pytest.mark.parametrize("prefix", [pytest.param("", id="v1"), pytest.param("/v2", id="v2")])


@pytest.fixture(scope="module")
def ui_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefectServer]:
    """A Prefect server with its user interface; this process's flows talk to it."""
    from support.prefect_server import LocalPrefectServer, talking_to

    home = tmp_path_factory.mktemp("ui")
    with LocalPrefectServer(home, ui=True, in_memory=True) as server, talking_to(server):
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


TABLES = "document.querySelectorAll('table').length >= 3"


def address(url: str, prefix: str) -> str:
    """Return the page of another user interface."""
    scheme, host, path = url.split("/", 3)[0], url.split("/", 3)[2], url.split("/", 3)[3]
    return f"{scheme}//{host}{prefix}/{path}"


def shows(text: str) -> str:
    """A JavaScript expression that is true when the page shows a text."""
    return f"!!document.body && document.body.innerText.includes({text!r})"


@UIS
def test_a_failed_run_shows_its_cause_without_a_click(
    ui_server: LocalPrefectServer, bolt_simulator: BoltSimulator, browser: Browser, prefix: str
) -> None:
    """The summary's page has the outcome, the cause in one sentence, the timeline and the commands."""
    from pages import failed_run

    pages = failed_run(ui_server, bolt_simulator)
    browser.open(
        address(pages.artifacts["paradime-nightly"], prefix), f"{shows('Where the time went')} && {TABLES}"
    )
    text = browser.text()
    assert "nightly: FAILED" in text
    assert "dbt build: model revenue failed: Runtime Error" in text
    assert "3 failed, 1 warned, 1 skipped, 15 succeeded" in text
    # What was escaped shows as it is, also in the text of links.
    assert "\\" not in text
    assert "&lt;" not in text
    browser.open(address(pages.artifacts["paradime-nightly-dbt-results"], prefix), shows("Slowest"))
    assert "Could not convert string 'card' to INT32" in browser.text()
    log = next(url for key, url in pages.artifacts.items() if key.startswith("paradime-nightly-log-4"))
    browser.open(address(log, prefix), shows("Running with dbt="))
    assert "\x1b" not in browser.text()
    # The flow run's own page leads to all of them.
    browser.open(address(pages.flow_run, prefix), f"{shows('Failed')} && {shows('Artifacts')}")


@UIS
def test_a_long_log_shows_its_beginning_and_its_end(
    ui_server: LocalPrefectServer, bolt_simulator: BoltSimulator, browser: Browser, prefix: str
) -> None:
    """A log of 2 MB opens with head and tail, and says what lies between."""
    from pages import LONG_LINES, long_log

    pages = long_log(ui_server, bolt_simulator)
    page = pages.artifacts["paradime-long-log-1-dbt-run"]
    browser.open(address(page, prefix), shows("bytes left out in the middle"), timeout=90)
    code = browser.seen("document.querySelector('pre')?.innerText")
    assert f" 1 of {LONG_LINES} OK" in code
    assert f" {LONG_LINES} of {LONG_LINES} OK" in code
    assert "bytes left out …]" in code
    assert len(code) < 1_000_000


@UIS
def test_a_hostile_log_is_text_and_nothing_else(
    ui_server: LocalPrefectServer, bolt_simulator: BoltSimulator, browser: Browser, prefix: str
) -> None:
    """On no page of the run did a script run, an image load, a link appear or the layout change."""
    from pages import hostile_log

    pages = hostile_log(ui_server, bolt_simulator)
    found = [pages.flow_run, *pages.artifacts.values()]
    assert len(found) >= 3
    log_pages = {url for key, url in pages.artifacts.items() if key.startswith("paradime-hostile-log")}
    assert log_pages
    for url in found:
        is_log = url in log_pages
        browser.open(address(url, prefix), shows("last line of the hostile log" if is_log else "hostile"))
        assert browser.evaluate("window.pwned") is None
        assert "PWNED" not in browser.evaluate("document.title")
        assert browser.dialogs == []
        assert not [request for request in browser.requests if "evil.test" in request]
        assert browser.evaluate("document.querySelectorAll('iframe').length") == 0
        links = browser.evaluate("[...document.querySelectorAll('a[href]')].map(a => [a.href, a.innerText])")
        assert not [href for href, _ in links if href.startswith("javascript:")]
        strange = [(href, text.strip()) for href, text in links if "//evil.test" in href]
        # Prefect's view of logs makes links of addresses, and so does its second interface wherever they are;
        # such a link shows where it leads.
        assert [href for href, text in strange if not text.startswith("http://evil.test/")] == []
        if not (prefix or url == pages.flow_run):
            assert strange == []
        assert browser.evaluate("getComputedStyle(document.body).display") != "none"
        if is_log:
            code = browser.seen("document.querySelector('pre')?.innerText")
            assert "<script>document.title = 'PWNED'" in code
            assert "# heading" in code
            assert "last line of the hostile log" in code
            assert not {"\x1b", "\x00", "\u202e"} & set(code)
