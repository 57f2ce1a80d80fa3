"""Checks whether Bolt accepts credentials, and finds the reason if it does not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from paradime_blocks.client import BoltClient
from paradime_blocks.client.replies import BAD_CREDENTIALS
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable

# Few retries, since a person waits for the result of a check.
CHECK_POLICY = RetryPolicy(attempts=2, total_seconds=10.0)


class CredentialsCheck(BaseModel):
    """The result of `ParadimeCredentials.check`.

    Attributes:
        status: `ok`: Bolt accepts the credentials; `bad_key`: Bolt does not accept the key, secret or token;
            `bad_workspace`: the endpoint has no such workspace, or the token is not for it; `read_only`: the key may
            read but not trigger; `refused`: Bolt refuses for another reason, which the message says;
            `unreachable`: Bolt sent no usable answer.
        message: A text that says what the status means and what to do.
        may_trigger: False if Bolt says that the key may only read; None if it is unknown.

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
        assert found.may_trigger is None  # unknown until the first trigger
        ```
    """

    status: Literal["ok", "bad_key", "bad_workspace", "read_only", "refused", "unreachable"]
    message: str
    may_trigger: Literal[False] | None = None

    @property
    def ok(self) -> bool:
        """Whether Bolt accepts the credentials and does not limit them to reading."""
        return self.status == "ok"


async def check(client: BoltClient, source: str) -> CredentialsCheck:
    """Check whether Bolt accepts a client's credentials; `ParadimeCredentials.acheck` says how.

    Args:
        client: The client, not yet open.
        source: The place where the credentials are stored; messages name it.
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
            message=f"The key of {source} may read but not trigger: give it 'Bolt Schedules Admin'.",
            may_trigger=False,
        )
    return CredentialsCheck(
        status="ok",
        message=(
            f"Bolt accepts the credentials of {source}. Triggers need the capability 'Bolt Schedules Admin'; "
            "whether the credentials have it shows only at the first trigger."
        ),
    )


def _judge(error: BoltError) -> CredentialsCheck:
    """Return the result of the check after an error of a query.

    HTTP 401: the key is wrong. HTTP 403: the workspace of a company token is wrong. HTTP 404, a redirect or a web page:
    the endpoint, which contains the workspace, is wrong. A GraphQL error says in words what is wrong.
    """
    message = str(error)
    if isinstance(error, BoltAuthError):
        bad_key = error.status_code == 401  # noqa: PLR2004
        return CredentialsCheck(status="bad_key" if bad_key else "bad_workspace", message=message)
    if getattr(error, "operation", None) is None:
        # The client failed before it had a connection, so Bolt has refused nothing.
        return CredentialsCheck(status="unreachable", message=message)
    entries = getattr(error, "graphql_errors", ())
    if not entries and getattr(error, "status_code", None) is not None:
        return CredentialsCheck(status="bad_workspace", message=message)
    words = " ".join(f"{entry.get('message')} {entry.get('extensions') or ''}" for entry in entries)
    if BAD_CREDENTIALS.search(words):
        guidance = "Create a key pair or token in the Paradime workspace settings and store it there."
        return CredentialsCheck(status="bad_key", message=f"{message} {guidance}")
    if "workspace" in words.lower():
        return CredentialsCheck(status="bad_workspace", message=message)
    return CredentialsCheck(status="refused", message=message)
