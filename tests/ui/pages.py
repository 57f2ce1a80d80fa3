"""The pages of Prefect's two user interfaces, opened by Playwright in Debian's Chromium.

`apt-get install chromium fonts-noto-color-emoji` installs all it needs; Playwright's own browsers are not used. Tests
check an open page through `PrefectPages.page` with Playwright's locators, which wait on their own.
"""

from __future__ import annotations

import re
import shutil
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from playwright.sync_api import BrowserContext, Dialog, Request

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Only this machine: Prefect's second interface requests the settings of its analytics elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# A page takes one to three seconds; ten on a machine under load.
TIMEOUT_SECONDS = 60

# Counts the pixels of the colours in which Prefect draws Failed and Completed.
_COUNT_COLOURS = """async (picture) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + picture)).blob());
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, image.width, image.height).data;
  const counted = {red: 0, green: 0};
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue] = data.slice(at, at + 3);
    if (red > 180 && green < 80 && blue < 80) counted.red += 1;
    if (green > 120 && red < 80 && blue < 110) counted.green += 1;
  }
  return counted;
}"""

# The URL prefixes of both interfaces.
PREFIXES = {"v1": "", "v2": "/v2"}


def find_chromium() -> str | None:
    """Return the program, or None if none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(*, width: int = 1280, height: int = 900) -> Iterator[BrowserContext]:
    """Start a browser without a window.

    Playwright runs an event loop in this thread until the end of the `with`, so no other loop can run in it.
    """
    program = find_chromium()
    if program is None:
        raise FileNotFoundError("No Chromium is installed (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale="en-US", timezone_id="UTC"
        )
        context.set_default_timeout(TIMEOUT_SECONDS * 1000)
        expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
        try:
            yield context
        finally:
            browser.close()


class PrefectPages:
    """A browser tab on the pages of a Prefect server.

    Args:
        page: The tab.
        address: The server's address.
        interface: One of its user interfaces, a key of PREFIXES.

    Attributes:
        interface: The same.
        requests: The addresses that the page has requested since it was opened.
        dialogs: The alerts of scripts on the page since then.
    """

    def __init__(self, page: Page, address: str, interface: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.interface = interface
        self._root = address + PREFIXES[interface]
        page.on("request", self._note_request)
        page.on("dialog", self._note_dialog)

    def open_flow_run(self, flow_run_id: UUID) -> None:
        self._open(f"runs/flow-run/{flow_run_id}")

    def open_task_run(self, task_run_id: UUID) -> None:
        self._open(f"runs/task-run/{task_run_id}")

    def colours_in(self, picture: bytes) -> dict[str, int]:
        """Return how many pixels of a picture are red and how many are green."""
        counted: dict[str, int] = self.page.evaluate(_COUNT_COLOURS, b64encode(picture).decode())
        return counted

    def open_artifact(self, artifact_id: UUID) -> None:
        self._open(f"artifacts/artifact/{artifact_id}")

    def open_run_form(self, deployment_id: UUID) -> None:
        """Open the form that starts a run of a deployment with custom parameters."""
        self._open(f"deployments/deployment/{deployment_id}/run")

    def open_block_form(self, block_type: str) -> None:
        """Open the form that makes a block.

        Args:
            block_type: The slug of its type.
        """
        self._open(f"blocks/catalog/{block_type}/create")

    def fill_in(self, *texts: str) -> None:
        """Type texts into the form's boxes, from the first one on."""
        boxes = self.page.locator("input, textarea")
        expect(boxes.nth(len(texts) - 1)).to_be_visible()
        for box, text in zip(boxes.all(), texts, strict=False):
            box.fill(text)

    def press(self, *names: str) -> None:
        """Press the first button with one of these names."""
        self.page.get_by_role("button", name=re.compile(f"^({'|'.join(names)})$")).first.click()

    def choose_tab(self, name: str) -> None:
        # The first interface marks its tabs as list items, the second as tabs.
        self.page.get_by_role("tablist").get_by_text(name, exact=True).click()

    def text(self, text: str) -> Locator:
        """Return the first place that shows a text."""
        return self.page.get_by_text(text).first

    def _open(self, path: str) -> None:
        self.requests.clear()
        self.dialogs.clear()
        self.page.goto(f"{self._root}/{path}")

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        # A dialog stops the page until it is closed.
        dialog.dismiss()
