"""Receives Bolt's webhooks, for Prefect's open-source server, which has no webhooks of its own.

`python -m paradime_flows.webhooks serve` starts the receiver. Or mount it into an application of your own:

    from starlette.applications import Starlette
    from starlette.routing import Mount

    from paradime_flows.webhooks import webhook_app

    app = Starlette(routes=[Mount("/paradime", webhook_app("production", archive=True))])
"""

from paradime_flows.webhooks.app import webhook_app
from paradime_flows.webhooks.secret import SECRET_VARIABLE

__all__ = ["SECRET_VARIABLE", "webhook_app"]
