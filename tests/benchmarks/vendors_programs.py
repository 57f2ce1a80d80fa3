"""The yardsticks of the vendor: `vendors_programs.py NAME [NUMBER ...]`.

They run in the environment of `make test-contract`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

_ENDED = {"SUCCESS", "ERROR", "FAILED", "CANCELED", "SKIPPED"}


def waits(*run_ids: int) -> None:
    """Ask for the state of each run once a second, a thread for each."""
    from paradime import Paradime

    sdk = Paradime(
        api_endpoint=os.environ["PARADIME_API_ENDPOINT"],
        api_key=os.environ["PARADIME_API_KEY"],
        api_secret=os.environ["PARADIME_API_SECRET"],
    )

    def wait(run_id: int) -> None:
        while getattr(sdk.bolt.get_run_status(run_id), "value", None) not in _ENDED:
            time.sleep(1)

    cpu = time.process_time()
    with ThreadPoolExecutor(len(run_ids)) as pool:
        list(pool.map(wait, run_ids))
    print(json.dumps({"cpu": time.process_time() - cpu}))


def logs(_: int) -> None:
    """The vendor's command line shows the log of a run while it runs."""
    from click.testing import CliRunner
    from paradime.cli.cli import cli

    CliRunner().invoke(cli, ["bolt", "run", "run-0", "--wait"], catch_exceptions=False)
    print(json.dumps({}))


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
