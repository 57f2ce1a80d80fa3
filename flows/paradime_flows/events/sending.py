"""Sends an event to Prefect. If an event cannot be sent, only a warning is logged: events must never harm a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import Event, emit_event
from prefect.settings import get_current_settings

from paradime_flows.prefect_api import run_logger

Resource = dict[str, str]


def send(
    name: str,
    resource: Resource,
    *,
    id: UUID,  # noqa: A002 - Prefect's own name
    related: Sequence[Resource] = (),
    payload: dict[str, Any] | None = None,
    flow_run_id: UUID | None = None,
) -> Event | None:
    """Send an event in the background.

    Args:
        name: The event's name.
        resource: What the event is about: its `prefect.resource.id` and its labels.
        id: The event's id.
        related: Other resources that the event concerns. This function adds the flow run and its flow, deployment and
            tags.
        payload: The event's data. Values that are None are left out.
        flow_run_id: The flow run that the event concerns, if it is not the current one.

    Returns:
        The event; None if it was not sent.
    """
    settings = get_current_settings()
    if not settings.api.url and not settings.server.ephemeral.enabled:
        return None
    data = {key: value for key, value in (payload or {}).items() if value is not None}
    everything = [*related, *_related_to_flow_run(flow_run_id)]
    try:
        event = copy_context().run(_emit, name, resource, related=everything, payload=data, id=id)
    except Exception as error:  # noqa: BLE001 - a client of events can raise any error
        run_logger().warning(
            "The event %s of %s was not sent: %s", name, resource["prefect.resource.id"], error
        )
        return None
    return event


def _emit(name: str, resource: Resource, **more: Any) -> Event | None:
    """Emit an event outside of the context of the flow run.

    Inside this context, Prefect would send five requests to find the related resources. The context variables are set
    to None. If they had no value, Prefect would use the flow run in which Prefect's thread for events was started.
    """
    FlowRunContext.__var__.set(None)  # type: ignore[arg-type]
    TaskRunContext.__var__.set(None)  # type: ignore[arg-type]
    event: Event | None = emit_event(name, resource, **more)
    return event


def _related_to_flow_run(flow_run_id: UUID | None) -> list[Resource]:
    context = FlowRunContext.get()
    here = context.flow_run if context is not None else None
    if context is None or here is None or flow_run_id not in {None, here.id}:
        return [] if flow_run_id is None else [_resource("flow-run", flow_run_id)]
    flow_name = context.flow.name if context.flow is not None else None
    found = [_resource("flow-run", here.id, here.name), _resource("flow", here.flow_id, flow_name)]
    if here.deployment_id is not None:
        found.append(_resource("deployment", here.deployment_id))
    return [*found, *(_resource("tag", tag) for tag in sorted(here.tags))]


def _resource(role: str, id: UUID | str, name: str | None = None) -> Resource:  # noqa: A002
    found = {"prefect.resource.id": f"prefect.{role}.{id}", "prefect.resource.role": role}
    return found if name is None else {**found, "prefect.resource.name": name}
