"""Credentials for a simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks import ParadimeCredentials

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator


def credentials_for(simulator: BoltSimulator, **fields: Any) -> ParadimeCredentials:
    """The credentials that a simulator accepts.

    Args:
        simulator: The simulator, started.
        fields: More fields of `ParadimeCredentials`; they replace the valid ones.
    """
    good = {
        "api_endpoint": simulator.api_endpoint,
        "api_key": simulator.api_key or None,
        "api_secret": simulator.api_secret,
        "workspace_uid": simulator.workspace_uid if simulator.bearer else None,
    }
    return ParadimeCredentials(**{**good, **fields})


async def save(credentials: ParadimeCredentials, name: str) -> None:
    """Save a block. If two tests save the first block of this type at the same moment, Prefect refuses one of them."""
    from prefect.exceptions import ObjectAlreadyExists

    try:
        await credentials.asave(name)
    except ObjectAlreadyExists:
        await credentials.asave(name)
