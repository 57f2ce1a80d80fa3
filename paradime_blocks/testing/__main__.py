"""The command `python -m paradime_blocks.testing`, which runs a simulator until the command is interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands import SimulatedCommand
from .samples import add_samples
from .simulator import BoltSimulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a simulator until SIGINT or SIGTERM.

    Args:
        arguments: The arguments of the command; by default, the arguments on this process's command line.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    simulator = BoltSimulator(
        speed=options.speed,
        host=options.host,
        port=options.port,
        api_key=options.api_key,
        api_secret=options.api_secret,
        read_only=options.read_only,
        bearer=options.bearer,
        workspace_uid=options.workspace_uid,
    )
    if options.schedules is None:
        add_samples(simulator)
    else:
        add_from_file(simulator, options.schedules)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    for url in options.webhook:
        simulator.add_webhook(url)
    with simulator:
        for name, value in sorted(simulator.environment().items()):
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        # Another process may be reading this output from a pipe.
        sys.stdout.flush()
        ended.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paradime_blocks.testing",
        description="Run a simulated Bolt workspace, and print the environment variables that a client needs.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--speed", type=float, default=1.0, help="virtual seconds per second (default: 1)")
    parser.add_argument("--api-key", default="simulated-key", help="the API key to accept")
    parser.add_argument("--api-secret", help="the API secret to accept (default: a random one)")
    parser.add_argument("--read-only", action="store_true", help="let the key only read")
    parser.add_argument("--bearer", help="a prdm_ token to accept instead of key and secret")
    parser.add_argument(
        "--workspace-uid",
        default="simulated-workspace",
        help="the workspace that a company token must select",
    )
    parser.add_argument(
        "--schedules",
        type=Path,
        help="a JSON file: a list of objects with the arguments of BoltSimulator.add_schedule; each command is a"
        " text or an object with the arguments of SimulatedCommand (default: the sample schedules of the examples)",
    )
    parser.add_argument(
        "--webhook",
        action="append",
        default=[],
        metavar="URL",
        help="send webhooks to this URL, as Bolt does; may be given several times",
    )
    return parser


def add_from_file(simulator: BoltSimulator, path: Path) -> None:
    """Add the schedules of a JSON file, as described for `--schedules`."""
    for entry in json.loads(path.read_text(encoding="utf-8")):
        simulator.add_schedule(**{**entry, "commands": [_command(each) for each in entry["commands"]]})


def _command(entry: str | dict[str, Any]) -> str | SimulatedCommand:
    return entry if isinstance(entry, str) else SimulatedCommand(**entry)


if __name__ == "__main__":
    sys.exit(main())
