"""The typed Bolt client: one method per GraphQL operation."""

from __future__ import annotations

from paradime_blocks.client.artifacts import ArtifactCalls
from paradime_blocks.client.schedules import ScheduleCalls


class BoltClient(ArtifactCalls, ScheduleCalls):
    """A typed client of one Bolt workspace.

    Use it as an async context manager: clients with the same settings in the same event loop share one
    connection pool while any of them is open. A failed query is retried as the retry policy says, and so is
    a mutation that is safe to repeat. A trigger is sent again only if Bolt cannot have processed it.

    Args:
        settings: The endpoint, the authentication and the limits of a request.
        retry_policy: How often and how long a request is tried.
        transport: Replaces the network in tests.
        sleep: How to wait between two tries; for tests.
        may_send: Called before a trigger is sent, and while the client waits to send it again. After it has returned
            False, the trigger is not sent.

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
