"""Shows dbt nodes as task runs, after the Bolt run has ended.

The timeline cannot show when a node ran, because Prefect gives each new state the present time. So the name of each
task run contains the duration of the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.states import Completed, Failed

from paradime_blocks.dbt import FAILED, GROUPS, SUCCEEDED, NodeResult, failures_first
from paradime_blocks.text import one_line, shorten
from paradime_flows.prefect_api import ShownTaskRun

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.schemas.objects import State

_NAME_CHARACTERS = 120
_MESSAGE_CHARACTERS = 300


def notable(nodes: Iterable[NodeResult], count: int) -> list[NodeResult]:
    """Return the nodes to show: first the nodes that did not succeed, then the slowest of the others.

    Args:
        nodes: All nodes of the Bolt run.
        count: How many nodes to return at most.
    """
    by_time = sorted(nodes, key=lambda node: -(node.seconds or 0.0))
    return list(failures_first(by_time)[:count])


async def show_nodes(nodes: Iterable[NodeResult]) -> None:
    """Show nodes as task runs.

    Args:
        nodes: The results of the nodes. The texts in the results must not contain secrets.
    """
    for node in nodes:
        took = "" if node.seconds is None else f" {shorten(node.seconds)}"
        name = f"{node.resource_type} {one_line(node.name, _NAME_CHARACTERS)}{took}"
        shown = await ShownTaskRun.begin(name)
        await shown.end(_state_of(node))


def _state_of(node: NodeResult) -> State[Any]:
    message = one_line(node.message or node.status, _MESSAGE_CHARACTERS)
    if node.status in FAILED:
        return Failed(message=message)
    if node.status in SUCCEEDED:
        return Completed(message=message)
    group = next((group for group, statuses in GROUPS.items() if node.status in statuses), node.status)
    return Completed(name=one_line(group, _NAME_CHARACTERS).capitalize() or None, message=message)
