"""Makes the three pictures of the README: `python tests/ui/screenshots.py` writes tests/ui/screenshots/*.png.

Starts a Prefect server and the Bolt simulator of its own, runs a schedule that fails as real dbt failed,
and takes pictures of what Prefect's UI shows of it. Needs Chromium, as tests/ui/test_pages.py says.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "ui"), str(TESTS), str(TESTS.parent / "deployments")]
FOLDER = TESTS / "ui" / "screenshots"
LARGEST_BYTES = 200_000


def main() -> None:
    """Take the pictures."""
    home = Path(tempfile.mkdtemp(prefix="screenshots-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # Prefect reads a `.env` where it runs.
    os.chdir(home)
    from local_server import LocalPrefectServer, talking_to

    with LocalPrefectServer(home, ui=True, in_memory=True) as server, talking_to(server):
        from browser import Browser
        from pages import failed_run

        from paradime_blocks.testing import BoltSimulator

        FOLDER.mkdir(exist_ok=True)
        with BoltSimulator() as simulator:
            pages = failed_run(server, simulator)
        with Browser(width=1200) as browser:
            for name, url, ready, height in (
                ("summary", pages.artifacts["paradime-nightly"], "Where the time went", 1290),
                ("dbt-results", pages.artifacts["paradime-nightly-dbt-results"], "Slowest", 1010),
                ("flow-run", pages.flow_run, "Done. PASS=15", 760),
            ):
                browser.open(url, f"!!document.body && document.body.innerText.includes({ready!r})")
                path = FOLDER / f"{name}.png"
                browser.screenshot(path, height=height)
                size = path.stat().st_size
                print(f"{path.relative_to(TESTS.parent)}: {size:,} bytes")
                if size > LARGEST_BYTES:
                    raise SystemExit(f"{path} is larger than {LARGEST_BYTES:,} bytes.")


if __name__ == "__main__":
    main()
