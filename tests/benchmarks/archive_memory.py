"""The memory needed to archive a run whose logs total 100 MB.

    python tests/benchmarks/archive_memory.py            # ten commands with 10 MB each
    python tests/benchmarks/archive_memory.py 1 100      # one command with 100 MB
    python tests/benchmarks/archive_memory.py 10 10 keep # with storage: the whole logs are stored, too, and a
    file as large as all of them

The simulator and the Prefect server run in their own processes, so only the archive's process is measured. It
prints the growth of its largest resident size, compared with everything imported and one small run
archived."""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deployments"), str(ROOT / "tests")]

# In its own process: its copies of the logs do not count for the archive.
SIMULATOR = """
import json, sys
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
count, megabytes = int(sys.argv[1]), int(sys.argv[2])
line = "12:01:02  \\x1b[32m{n:>9} of 99 OK created sql table model analytics.orders in 0.92s\\x1b[0m\\n"
lines = megabytes * 1_000_000 // len(line.format(n=0))
with BoltSimulator() as simulator:
    log = "".join(line.format(n=n) for n in range(lines))
    commands = [SimulatedCommand(f"dbt run --select part_{n}", stdout=log) for n in range(count)]
    commands.append(SimulatedCommand("dbt docs generate", resources={"target/large.bin": b"x" * len(log) * count}))
    simulator.add_schedule("large", commands=commands)
    simulator.add_schedule("small")
    ids = [simulator.start_run(name) for name in ("small", "large")]
    simulator.clock.advance(1000)
    print(json.dumps([simulator.api_endpoint, simulator.api_key, simulator.api_secret, *ids]), flush=True)
    sys.stdin.read()
"""


def main(count: int = 10, megabytes: int = 10, *, keep: bool = False) -> None:
    """Archive such a run, and print the result."""
    os.chdir(home := Path(tempfile.mkdtemp(prefix="archive-memory-")))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    from local_server import LocalPrefectServer, talking_to

    arguments = [sys.executable, "-c", SIMULATOR, str(count), str(megabytes)]
    with (
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as simulator,
        LocalPrefectServer(home, in_memory=True) as server,
        talking_to(server),
    ):
        from prefect.filesystems import LocalFileSystem

        from paradime_blocks import ParadimeCredentials
        from paradime_flows.archive_run import archive_run

        assert simulator.stdin is not None
        assert simulator.stdout is not None
        endpoint, key, secret, small, large = json.loads(simulator.stdout.readline())
        credentials = ParadimeCredentials(
            api_endpoint=endpoint, api_key=key, api_secret=secret, request_timeout_seconds=120
        )
        filesystem = LocalFileSystem(basepath=str(home / "kept")) if keep else None
        archive_run(small, credentials, schedule_name="small", storage=filesystem)
        before = _peak_megabytes()
        began = time.monotonic()
        keep_too = ["*.bin", "*.json"]
        archive_run(large, credentials, schedule_name="large", storage=filesystem, storage_patterns=keep_too)
        print(
            f"{count} commands with {megabytes} MB of log each, storage {'on' if keep else 'off'}: "
            f"peak RSS {before:.0f} MB -> {_peak_megabytes():.0f} MB "
            f"(+{_peak_megabytes() - before:.0f} MB), {time.monotonic() - began:.1f} s"
        )
        simulator.stdin.close()


def _peak_megabytes() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 1000


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*(int(word) for word in words if word.isdigit()), keep="keep" in words)
