"""The typed Bolt client: one method per GraphQL operation."""

from __future__ import annotations

from paradime_blocks.client.artifacts import ArtifactCalls
from paradime_blocks.client.schedules import ScheduleCalls


class BoltClient(ArtifactCalls, ScheduleCalls):
    """A typed client of one Bolt workspace.

    Use the client as an async context manager. Open clients with the same settings in the same event loop share one
    connection pool. A query that fails is retried as the retry policy says, and so is a mutation that is safe to
    repeat. A trigger is sent again only if Bolt cannot have processed it.

    Args:
        settings: The endpoint, the authentication and the limits of a request.
        retry_policy: How often and how long a request is tried.
        transport: An httpx transport that replaces the network in tests.
        sleep: Waits between two tries. Tests replace this function.
        may_send: A function that the client calls before it sends a trigger, and while it waits to send the trigger
            again. After the function has returned False, the client does not send the trigger.

    Example:
        ```python
        import asyncio
        from paradime_blocks.client import BoltClient, ConnectionSettings, auth_for
        from paradime_blocks.testing import BoltSimulator

        async def main(simulator):
            auth = auth_for(simulator.api_key, simulator.api_secret)
            async with BoltClient(ConnectionSettings(simulator.api_endpoint, auth)) as client:
                run_id = await client.trigger_bolt_run("daily", commands=["dbt compile"])
                print((await client.get_bolt_run(run_id)).state)

        with BoltSimulator() as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            asyncio.run(main(simulator))
        ```
    """
