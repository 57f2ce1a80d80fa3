"""What Prefect may store of a flow run's parameters: names of blocks, never the values in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.blocks.core import Block
from pydantic import BaseModel

from paradime_blocks import BoltRequestError

_OF_BLOCKS = frozenset({"credentials", "schedule_name", "storage"})


def stored(name: str, value: object) -> Any:
    """Return a parameter as it is to be stored, where everybody may read it.

    Args:
        name: The parameter's name, for the error.
        value: Its value in a call.

    Raises:
        BoltRequestError: The values of a block are given by themselves, secrets included.
    """
    if isinstance(value, Block):
        # Without an id it is a copy for another workspace, for which its block's name must not stand.
        saved_as = value._block_document_id and value._block_document_name  # noqa: SLF001 - no public names
        return (
            f"{value.get_block_type_slug()}/{saved_as}" if saved_as else f"{type(value).__name__}, not saved"
        )
    if isinstance(value, BaseModel):
        value = dict(value)
    if not isinstance(value, Mapping):
        return value
    if name in _OF_BLOCKS and set(value) != {"$ref"}:
        msg = f"{name} holds the values of a block. Prefect would store them in plain text, secrets included."
        raise BoltRequestError(msg, guidance=f"Nothing was sent. Save a block, and give its name as {name}.")
    return {each: stored(str(each), inner) for each, inner in value.items()}
