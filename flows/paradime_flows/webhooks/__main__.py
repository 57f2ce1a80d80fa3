"""The command `python -m paradime_flows.webhooks serve`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import uvicorn
from prefect.logging.configuration import setup_logging

from paradime_blocks import BoltError
from paradime_flows.prefect_api import resolve_credentials
from paradime_flows.watching import ArchivePlan
from paradime_flows.webhooks.app import webhook_app
from paradime_flows.webhooks.secret import SECRET_VARIABLE

_MOST_CONNECTIONS: Final = 1_000
_LAST_ANSWERS_SECONDS: Final = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Receive webhooks until SIGINT or SIGTERM.

    Args:
        arguments: The arguments of the command; by default, the arguments on this process's command line.

    Returns:
        The exit code: 0, or 2 if something is missing.
    """
    options = _parser().parse_args(arguments)
    setup_logging()
    choices = {"archive": options.archive, "assets": options.assets}
    try:
        found = asyncio.run(resolve_credentials(options.credentials))
        ArchivePlan.of(options.credentials, found, deployment=options.archive_deployment, **choices)
        app = webhook_app(options.credentials, archive_deployment=options.archive_deployment, **choices)
    except (BoltError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # The application logs each webhook itself. An access log would hold the address, with the secret.
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paradime_flows.webhooks",
        description="Receive Bolt's webhooks: send the events of Bolt runs to Prefect, and archive the runs by choice.",
    )
    serve = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "serve",
        help="listen for webhooks",
        description=f"Listen at /hooks/<secret>. {SECRET_VARIABLE} holds the secret, or several with commas between.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8088, help="port to listen on (default: %(default)s)")
    serve.add_argument(
        "--credentials", help="name of a Paradime Credentials block (default: the variables PARADIME_*)"
    )
    serve.add_argument("--archive", action="store_true", help="archive runs that no flow run has waited for")
    serve.add_argument("--assets", action="store_true", help="the same, and report models as assets")
    serve.add_argument(
        "--archive-deployment",
        default="archive-run/bolt",
        metavar="NAME",
        help="deployment that archives the runs (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
