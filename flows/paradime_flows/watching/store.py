"""Keeps the cursor of `watch_runs` in a variable of Prefect, one for each workspace."""

from __future__ import annotations

import json

from prefect.variables import Variable
from pydantic import ValidationError

from paradime_flows.events import Workspace
from paradime_flows.prefect_api import WATCH_VARIABLE_PREFIX, run_logger, short_hash
from paradime_flows.watching.cursor import Cursor


def _name(workspace: Workspace) -> str:
    return f"{WATCH_VARIABLE_PREFIX}{short_hash(f'{workspace.host} {workspace.name}')}"


async def read_cursor(workspace: Workspace) -> Cursor | None:
    """Return the cursor of a workspace; None before the first poll."""
    value = await Variable.aget(_name(workspace))
    if value is None:
        return None
    try:
        return Cursor.model_validate(value)
    except ValidationError:
        run_logger().warning(
            "The variable %s has no valid cursor, so the watch begins anew.", _name(workspace)
        )
        return None


async def write_cursor(workspace: Workspace, cursor: Cursor) -> None:
    """Write the cursor of a workspace."""
    value = json.loads(cursor.model_dump_json(exclude_defaults=True))
    await Variable.aset(_name(workspace), value, tags=["paradime"], overwrite=True)
