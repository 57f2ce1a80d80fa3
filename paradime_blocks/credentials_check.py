"""Whether Bolt accepts credentials, and if not, what is wrong with them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from paradime_blocks.client import BoltClient
from paradime_blocks.client.replies import BAD_CREDENTIALS
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable

# Somebody waits for the outcome of a check.
CHECK_POLICY = RetryPolicy(attempts=2, total_seconds=10.0)


class CredentialsCheck(BaseModel):
    """What `ParadimeCredentials.check` found.

    Attributes:
        status: `ok`: Bolt accepts the credentials; `bad_key`: Bolt does not accept the key, secret or token;
            `bad_workspace`: there is no such workspace at the endpoint, or the token is not for it;
            `read_only`: the key may read and not trigger; `refused`: Bolt refuses to be read for another
            reason, which the message holds; `unreachable`: no usable answer came.
        message: The same for a person, with what to do.
        may_trigger: False if Bolt says that the key may only read; None if that cannot be told.

    Example:
        ```python
        from paradime_blocks import ParadimeCredentials
        from paradime_blocks.testing import BoltSimulator

        with BoltSimulator() as simulator:
            credentials = ParadimeCredentials(
                api_endpoint=simulator.api_endpoint,
                api_key=simulator.api_key,
                api_secret=simulator.api_secret,
            )
            found = credentials.check()
        assert found.ok, found.message
        assert found.may_trigger is None  # only a trigger can tell
        ```
    """

    status: Literal["ok", "bad_key", "bad_workspace", "read_only", "refused", "unreachable"]
    message: str
    may_trigger: Literal[False] | None = None

    @property
    def ok(self) -> bool:
        """Whether Bolt accepts the credentials, and does not say that they may only read."""
        return self.status == "ok"


async def check(client: BoltClient, source: str) -> CredentialsCheck:
    """Find out whether Bolt accepts a client's credentials; `ParadimeCredentials.acheck` says how.

    Args:
        client: The client, not yet open.
        source: Where the credentials are kept, for messages.
    """
    try:
        async with client:
            await client.list_bolt_schedules(limit=1)
            may_trigger = await client.may_trigger()
    except BoltUnavailable as error:
        return CredentialsCheck(status="unreachable", message=str(error))
    except BoltError as error:
        return _judge(error)
    if may_trigger is False:
        return CredentialsCheck(
            status="read_only",
            message=f"The key of {source} may read and not trigger: give it 'Bolt Schedules Admin'.",
            may_trigger=False,
        )
    return CredentialsCheck(
        status="ok",
        message=(
            f"Bolt accepts the credentials of {source}. Whether they may trigger, which takes the "
            "capability 'Bolt Schedules Admin', Bolt does not tell before they do."
        ),
    )


def _judge(error: BoltError) -> CredentialsCheck:
    """Tell from how a read was refused whether key, workspace or something else is to blame.

    HTTP 401 is the key; 403 the workspace where a company token chooses it in a header, and 404, a redirect or
    a page for people is the address, of which the workspace is part. A GraphQL error tells it in words.
    """
    message = str(error)
    if isinstance(error, BoltAuthError):
        bad_key = error.status_code == 401  # noqa: PLR2004
        return CredentialsCheck(status="bad_key" if bad_key else "bad_workspace", message=message)
    if getattr(error, "operation", None) is None:
        # It was refused on our side, before there was a connection.
        return CredentialsCheck(status="unreachable", message=message)
    entries = getattr(error, "graphql_errors", ())
    if not entries and getattr(error, "status_code", None) is not None:
        return CredentialsCheck(status="bad_workspace", message=message)
    told = " ".join(f"{entry.get('message')} {entry.get('extensions') or ''}" for entry in entries)
    if BAD_CREDENTIALS.search(told):
        guidance = "Create a key pair or token in the Paradime workspace settings and store it there."
        return CredentialsCheck(status="bad_key", message=f"{message} {guidance}")
    if "workspace" in told.lower():
        return CredentialsCheck(status="bad_workspace", message=message)
    return CredentialsCheck(status="refused", message=message)
