"""A headless Chromium, driven through its DevTools: opens a page, reads it and takes its picture.

Debian's package is all it needs: `apt-get install chromium`. Chromium keeps to a profile of its own, which is
new and empty, and does nothing in the background.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)
START_SECONDS = 60.0
ANSWER_SECONDS = 60.0


def find_chromium() -> str | None:
    """Return the program, or None where none is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


# How often in a row a page is to be ready.
_STEADY = 3


class Browser:
    """A browser with one page: a context manager.

    Attributes:
        requests: The addresses that the page asked for since it was opened.
        dialogs: What scripts of the page have alerted.
    """

    def __init__(self, *, width: int = 1280, height: int = 900) -> None:
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self._size = (width, height)
        self._ids = 0

    def __enter__(self) -> Self:
        program = find_chromium()
        if program is None:
            raise FileNotFoundError("No Chromium is installed (Debian: apt-get install chromium).")
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        width, height = self._size
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", f"--window-size={width},{height}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._profile},
            start_new_session=True,
        )
        try:
            self._socket = connect(self._page_address(), max_size=None, proxy=None, compression=None)
            for domain in ("Page", "Runtime", "Network"):
                self._call(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str, ready: str, timeout: float = 60.0) -> None:
        """Open a page.

        Args:
            url: Its address.
            ready: A JavaScript expression that is true once it shows what it is to show.
            timeout: How long to wait for that, in seconds.
        """
        self.requests.clear()
        self.dialogs.clear()
        self._call("Page.navigate", url=url)
        deadline = time.monotonic() + timeout
        steady = 0
        # A page may be drawn anew after it was ready, and shows nothing for a moment then.
        while steady < _STEADY:
            steady = steady + 1 if self.evaluate(ready) else 0
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} did not come to {ready!r}; it shows:\n{self.text()[:2000]}")
            time.sleep(0.25)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        reply = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return reply["result"].get("value")

    def seen(self, expression: str, timeout: float = 30.0) -> Any:
        """Return an expression's value as soon as it has one: a page may be drawn anew after it was ready."""
        deadline = time.monotonic() + timeout
        while (value := self.evaluate(expression)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression!r} has no value; the page shows:\n{self.text()[:2000]}")
            time.sleep(0.2)
        return value

    def text(self) -> str:
        """Return the text that the page shows."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def screenshot(self, path: Path, *, height: int | None = None) -> None:
        """Take a picture of the page as a person would see it.

        Args:
            path: Where to write the PNG.
            height: The window's height in pixels for it; None for as it is.
        """
        width, usual = self._size
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height or usual,
            deviceScaleFactor=1,
            mobile=False,
        )
        time.sleep(0.5)
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _page_address(self) -> str:
        """Return the address of the page's DevTools, once Chromium has written its port down."""
        deadline = time.monotonic() + START_SECONDS
        port_file = Path(self._profile, "DevToolsActivePort")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            try:
                port = port_file.read_text().split()[0]
                with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    pages = [each for each in json.load(answer) if each["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            except (OSError, IndexError, ValueError):
                pass
            time.sleep(0.1)
        raise TimeoutError("Chromium did not start.")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._ids += 1
        mine = self._ids
        self._socket.send(json.dumps({"id": mine, "method": method, "params": params}))
        for message in self._messages():
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]  # type: ignore[no-any-return]
        raise ConnectionError("Chromium hung up.")

    def _messages(self) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            message = json.loads(self._socket.recv(timeout=ANSWER_SECONDS))
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if message.get("method") == "Page.javascriptDialogOpening":
                self.dialogs.append(message["params"]["message"])
                # A dialog stops the page until somebody answers it.
                self._ids += 1
                answer = {
                    "id": self._ids,
                    "method": "Page.handleJavaScriptDialog",
                    "params": {"accept": False},
                }
                self._socket.send(json.dumps(answer))
            yield message
