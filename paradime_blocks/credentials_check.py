"""Checks whether Bolt accepts credentials. If Bolt does not accept the credentials, the check finds the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

# Few retries, since a person waits for the result of a check.
CHECK_POLICY = RetryPolicy(attempts=2, total_seconds=10.0)


class CredentialsCheck(BaseModel):
    """The result of `ParadimeCredentials.check`.

    Attributes:
        status: `ok`: Bolt accepts the credentials; `bad_key`: Bolt does not accept the key, secret or token;
            `bad_workspace`: the workspace does not exist, or the token does not open the workspace; `read_only`: the
            key may read but not trigger; `refused`: Bolt refused the check for another reason, which the message says;
            `unreachable`: Bolt sent no usable answer.
        message: A text that says what the status means and what to do.
        may_trigger: False if Bolt says that the key may only read; None if it is unknown whether the key may trigger.

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
        """Whether the status is `ok`: Bolt accepts the credentials and has not said that the key may only read."""
        return self.status == "ok"


async def check(client: BoltClient, source: str) -> CredentialsCheck:
    """Check whether Bolt accepts a client's credentials. `ParadimeCredentials.acheck` describes the check.

    Args:
        client: The client, which is not open yet.
        source: A name of the place where the credentials are stored, for messages.
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
            message=f"The key of {source} may only read. To trigger, it needs the capability 'Bolt Schedules Admin'.",
            may_trigger=False,
        )
    return CredentialsCheck(
        status="ok",
        message=(
            f"Bolt accepts the credentials of {source}. Triggers need the capability 'Bolt Schedules Admin'. "
            "Only the first trigger shows whether the credentials have this capability."
        ),
    )


def _judge(error: BoltError) -> CredentialsCheck:
    """Return the result of a check whose query failed.

    HTTP 401 means that the key is wrong. HTTP 403 means that the workspace of a company token is wrong. HTTP 404, a
    redirect or a web page means that the endpoint, which contains the workspace's name, is wrong. The message of a
    GraphQL error says what is wrong.
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
    from paradime_blocks.client.replies import BAD_CREDENTIALS  # noqa: PLC0415 - the client was needed, too

    if BAD_CREDENTIALS.search(words):
        guidance = (
            "Create a new key pair or token in the Paradime workspace settings and replace the stored one."
        )
        return CredentialsCheck(status="bad_key", message=f"{message} {guidance}")
    if "workspace" in words.lower():
        return CredentialsCheck(status="bad_workspace", message=message)
    return CredentialsCheck(status="refused", message=message)
