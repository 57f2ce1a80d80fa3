"""Makes the three screenshots of the READMEs: `python tests/ui/screenshots.py` writes tests/ui/screenshots/*.png.

It starts a Prefect server and a Bolt simulator, runs a schedule that fails as real dbt failed,
and takes screenshots of Prefect's UI. It needs Chromium: see tests/ui/test_pages.py.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "deployments")]
FOLDER = TESTS / "ui" / "screenshots"
LARGEST_BYTES = 200_000


def main() -> None:
    """Take the screenshots."""
    home = Path(tempfile.mkdtemp(prefix="screenshots-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # Prefect reads a `.env` file from the current folder.
    os.chdir(home)
    from local_server import LocalPrefectServer, talking_to

    with LocalPrefectServer(home, ui=True, in_memory=True) as server, talking_to(server):
        take_pictures(server)


def take_pictures(server):
    """Take the screenshots of a server's pages."""
    from ui.pages import PrefectPages, chromium
    from ui.runs import failed_run

    from paradime_blocks.testing import BoltSimulator

    # Slow enough for a timeline in which the commands can be told apart.
    with BoltSimulator(speed=0.3) as simulator:
        run = failed_run(simulator)
    FOLDER.mkdir(exist_ok=True)
    with chromium(width=1200) as browser:
        pages = PrefectPages(browser.new_page(), server.ui_url, "v1")

        def take(name: str, shows: str, height: int) -> None:
            pages.page.set_viewport_size({"width": 1200, "height": height})
            pages.text(shows).wait_for()
            path = FOLDER / f"{name}.png"
            pages.page.screenshot(path=path, animations="disabled")
            size = path.stat().st_size
            print(f"{path.relative_to(TESTS.parent)}: {size:,} bytes")
            if size > LARGEST_BYTES:
                raise SystemExit(f"{path} is larger than {LARGEST_BYTES:,} bytes.")

        pages.open_artifact(run.artifact_ids["paradime-nightly"])
        take("summary", "Where the time went", 1290)
        pages.open_artifact(run.artifact_ids["paradime-nightly-dbt-results"])
        take("dbt-results", "Slowest", 1010)
        pages.open_flow_run(run.flow_run_id)
        take("flow-run", "Command 1, dbt deps", 760)


if __name__ == "__main__":
    main()
