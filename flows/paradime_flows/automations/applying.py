"""Makes the automations in Prefect equal to those in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltRequestError
from paradime_flows.automations.rules import NAME_PREFIX, Rules
from paradime_flows.prefect_api import prefect_client

_PAGE: Final = 200


@dataclass
class Applied:
    """The names of the automations that were created, updated, unchanged and deleted."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


async def apply(rules: Rules, *, dry_run: bool = False) -> Applied:
    """Create, update and delete automations of this package, so that Prefect has the automations of the rules.

    Other automations are never changed. An automation that a person has switched off stays off.

    Args:
        rules: The rules.
        dry_run: Whether to change nothing, and only to return what would be done.

    Raises:
        BoltRequestError: A block or deployment that the rules name does not exist. Nothing was changed.
    """
    done = Applied()
    async with prefect_client() as client:
        wanted = await _wanted(client, rules)
        ours: dict[str, list[Automation]] = {}
        for known in await _all(client):
            if known.name.startswith(NAME_PREFIX):
                ours.setdefault(known.name, []).append(known)
        left: list[Automation] = []
        for automation in wanted:
            # If two calls of `apply` ran at once, there may be two automations with this name. The second is deleted.
            known_ones = ours.pop(automation.name, [])
            left += known_ones[1:]
            await _put(client, next(iter(known_ones), None), automation, done, dry_run=dry_run)
        left += [known for others in ours.values() for known in others]
        for known in left:
            done.deleted.append(known.name)
            if not dry_run:
                await client.delete_automation(known.id)
    return done


async def _wanted(client: PrefectClient, rules: Rules) -> list[AutomationCore]:
    blocks = {name: await _block_id(client, name) for name in sorted(rules.blocks)}
    deployments = {name: await _deployment_id(client, name) for name in sorted(rules.deployments)}
    return rules.automations(blocks, deployments)


async def _all(client: PrefectClient) -> list[Automation]:
    found: list[Automation] = []
    while True:
        page = await client.read_automations(limit=_PAGE, offset=len(found))
        found += page
        if len(page) < _PAGE:
            return found


async def _put(
    client: PrefectClient,
    known: Automation | None,
    wanted: AutomationCore,
    done: Applied,
    *,
    dry_run: bool,
) -> None:
    if known is None:
        done.created.append(wanted.name)
        if not dry_run:
            await client.create_automation(wanted)
    elif _content(known) == _content(wanted):
        done.unchanged.append(wanted.name)
    else:
        done.updated.append(wanted.name)
        if not dry_run:
            new = wanted.model_copy(update={"enabled": known.enabled})
            await client.update_automation(known.id, new)


def _content(automation: AutomationCore) -> dict[str, Any]:
    """Return the part of an automation that the rules decide. The ids and the switch (on or off) are left out."""
    known = AutomationCore.model_validate(automation.model_dump())
    return known.model_dump(mode="json", include={"name", "description", "trigger", "actions"})


async def _block_id(client: PrefectClient, name: str) -> UUID:
    slug, _, block = name.partition("/")
    try:
        return (await client.read_block_document_by_name(block, slug)).id
    except ObjectNotFound:
        msg = f"There is no block {name!r}."
        raise BoltRequestError(
            msg, guidance="Save the block in Prefect's UI first. No automation was changed."
        ) from None


async def _deployment_id(client: PrefectClient, name: str) -> UUID:
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound:
        msg = f"There is no deployment {name!r}."
        guidance = (
            "Deploy deployments/prefect.yaml first, or name another deployment. No automation was changed."
        )
        raise BoltRequestError(msg, guidance=guidance) from None
