"""Our client's results, for the tests in the vendor's environment: calls and results are JSON.

Runs on our own Python, with the repository in its path: the vendor's SDK and Prefect cannot be installed together.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from pydantic import BaseModel

from paradime_blocks import BoltError
from paradime_blocks.client import BoltClient, ConnectionSettings, auth_for


async def answer(client: BoltClient, call: dict[str, Any]) -> Any:
    """Execute one call: a method of the client and its arguments."""
    try:
        found = getattr(client, call["method"])(*call.get("args", []), **call.get("kwargs", {}))
        found = [item async for item in found] if hasattr(found, "__aiter__") else await found
    except BoltError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"value": found}


def plain(value: Any) -> Any:
    """Convert a value that JSON does not support."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value.decode() if isinstance(value, bytes) else str(value)


async def main() -> None:
    """Execute all calls of standard input, in order."""
    auth = auth_for(os.environ["PARADIME_API_KEY"], os.environ["PARADIME_API_SECRET"])
    async with BoltClient(ConnectionSettings(os.environ["PARADIME_API_ENDPOINT"], auth)) as client:
        answers = [await answer(client, call) for call in json.load(sys.stdin)]
    json.dump(answers, sys.stdout, default=plain)


asyncio.run(main())
