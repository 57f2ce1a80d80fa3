"""The typed Bolt client: one method per GraphQL operation."""

from __future__ import annotations

from paradime_blocks.client.artifacts import ArtifactCalls
from paradime_blocks.client.schedules import ScheduleCalls


class BoltClient(ArtifactCalls, ScheduleCalls):
    """A typed client of one Bolt workspace.

    Use it as an async context manager: clients with the same settings in the same event loop share one
    connection pool while any of them is open. Reads, and the mutations that are safe to repeat, are retried
    by the policy; a trigger is sent again only when Bolt cannot have seen it.

    Args:
        api_endpoint: The workspace's GraphQL endpoint.
        api_key: The API key; not needed with a bearer token.
        api_secret: The API secret, or a token that begins with `prdm_wsp_` or `prdm_cmp_`.
        workspace_uid: The workspace that a company token acts on.
        proxy: A proxy's URL; `none` for no proxy; None for what the environment says.
        request_timeout_seconds: How long one request may take as a whole.
        source: Where the credentials are kept, for messages.
        retry_policy: How often and how long a request is tried.
        transport: Takes the place of the network; for tests.
        sleep: How to wait between tries; for tests.

    Raises:
        BoltRequestError: An argument is no good; the message says what to type.

    Example:
        ```python
        import asyncio
        from paradime_blocks import BoltClient
        from paradime_blocks.testing import BoltSimulator

        async def main(simulator):
            async with BoltClient(
                simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
            ) as client:
                run_id = await client.trigger_bolt_run("daily", commands=["dbt compile"])
                print((await client.get_bolt_run(run_id)).state)

        with BoltSimulator() as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            asyncio.run(main(simulator))
        ```
    """
