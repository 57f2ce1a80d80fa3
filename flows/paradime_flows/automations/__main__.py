"""The command `python -m paradime_flows.automations apply automations.yaml`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict

from paradime_blocks import BoltRequestError
from paradime_flows.automations import Rules, apply


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m paradime_flows.automations",
        description="Makes the automations in Prefect equal to those in a file. The command can be repeated.",
    )
    parser.add_argument("command", choices=["apply"])
    parser.add_argument("file", nargs="?", default="automations.yaml", help="by default automations.yaml")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    given = parser.parse_args(arguments)
    try:
        done = asyncio.run(apply(Rules.from_yaml(given.file), dry_run=given.dry_run))
    except BoltRequestError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    lines = [f"{what:9}  {name}\n" for what, names in asdict(done).items() for name in names]
    sys.stdout.writelines(
        lines or ["The file has no automation, and Prefect has no automation of this package.\n"]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
