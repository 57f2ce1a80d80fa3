"""The web application that receives Bolt's webhooks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paradime_blocks import ParadimeCredentials
from paradime_flows.prefect_api import resolve_credentials, run_logger, times
from paradime_flows.watching import ArchivePlan, CommandIds, Reported, report_commands
from paradime_flows.webhooks.body import LARGEST_BODY, command_ids
from paradime_flows.webhooks.inbox import Inbox
from paradime_flows.webhooks.secret import (
    SECRET_VARIABLE,
    hide_secrets_in_access_log,
    is_secret,
    parse_secrets,
)


def webhook_app(
    credentials: ParadimeCredentials | str | None = None,
    *,
    secrets: Sequence[str] | None = None,
    archive: bool = False,
    assets: bool = False,
    archive_deployment: str = "archive-run/bolt",
) -> Starlette:
    """Return the application: `POST /hooks/<secret>` takes a webhook, `GET /health` says whether it works.

    The application answers a webhook at once, and does the work of the webhook afterwards: it asks Bolt about the run,
    and sends the run's events to Prefect. The application also works inside another application (`Mount`).

    Args:
        credentials: A saved Paradime Credentials block, or the name of the block. If None, the environment variables
            PARADIME_* are used.
        secrets: The secrets that are accepted in the address. By default, the secrets in the variable
            PARADIME_WEBHOOK_SECRET, with commas between them.
        archive: Whether to archive each Bolt run that has ended and that no flow run has waited for.
        assets: Whether the archive reports the built models, seeds and snapshots to Prefect as assets.
        archive_deployment: The deployment of the flow archive-run that archives the Bolt runs.

    Raises:
        ValueError: There is no secret, or a secret is too short.
    """
    accepted = parse_secrets(os.environ.get(SECRET_VARIABLE, "") if secrets is None else ",".join(secrets))
    hide_secrets_in_access_log()
    inbox = Inbox(_Work(credentials, archive=archive, assets=assets, archive_deployment=archive_deployment))

    async def receive(request: Request) -> Response:
        if not is_secret(request.path_params["secret"], accepted):
            run_logger().info("A webhook with a wrong secret was refused.")
            raise HTTPException(404)
        ids = await _named(request)
        if not ids:
            run_logger().info("A webhook named no command. `watch_runs` sees its run.")
        elif not inbox.put(ids):
            raise _refused(503, f"{len(inbox)} webhooks are waiting, and no more are taken.")
        else:
            run_logger().info("A webhook named %d command(s), the first is %d.", len(ids), ids[0])
        return JSONResponse({"commands": len(ids)}, 202)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": len(inbox)})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await inbox.close()

    routes = [Route("/hooks/{secret}", receive, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


@dataclass(frozen=True)
class _Work:
    """Asks Bolt about the runs of webhooks, and tells Prefect."""

    credentials: ParadimeCredentials | str | None
    archive: bool
    assets: bool
    archive_deployment: str

    async def __call__(self, named: list[CommandIds]) -> Reported:
        # A saved block is read each time, since its key may have been changed.
        found = await resolve_credentials(self.credentials)
        plan = ArchivePlan.of(
            self.credentials,
            found,
            archive=self.archive,
            assets=self.assets,
            deployment=self.archive_deployment,
        )
        reported = await report_commands(named, found, plan)
        for run in reported.watched:
            run_logger().info(
                "Bolt run %d of %s: %s. Sent: %s. Archived by: %s.",
                run.run_id,
                run.schedule_name,
                run.state,
                ", ".join(run.events) or "nothing",
                run.archived_by or "no flow run",
            )
        return reported


async def _named(request: Request) -> CommandIds:
    """Return the commands that a webhook names.

    Raises:
        HTTPException: The body is cut off, slow, too large or no JSON object.
    """
    body = bytearray()
    try:
        with anyio.fail_after(times().webhook_body_seconds):
            # It is not known which content type the sender gives the body, so the content type is not checked.
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise _refused(413, f"The body has more than {LARGEST_BODY} bytes.")
        return command_ids(bytes(body))
    except ClientDisconnect:
        raise _refused(400, "The body was cut off.") from None
    except TimeoutError:
        raise _refused(408, "The body took too long to arrive.") from None
    except ValueError:
        raise _refused(400, "The body is no JSON object.") from None


def _refused(status: int, why: str) -> HTTPException:
    run_logger().warning("A webhook was refused: %s", why)
    return HTTPException(status, why)
