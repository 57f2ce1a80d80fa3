"""Converts the parameters of a flow run to the values that Prefect stores: the names of blocks, not their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from prefect.blocks.core import Block
from pydantic import BaseModel

from paradime_blocks import BoltRequestError

_64_BITS = 2**63
# NUL, and surrogates (halves of a character), which come from broken decoding. A database refuses NUL, and UTF-8
# cannot encode a surrogate.
_BROKEN = re.compile(r"[\x00\ud800-\udfff]")
_OF_BLOCKS = frozenset({"credentials", "schedule_name", "storage"})


def stored(name: str, value: object) -> Any:
    """Return the value that Prefect stores for a parameter. Everybody who can read the flow run can read this value.

    Args:
        name: The parameter's name, for the error message.
        value: The parameter's value in a call.

    Raises:
        BoltRequestError: The parameter contains the values of a block with its secrets, or a number or text that
            Prefect cannot store.
    """
    if isinstance(value, Block):
        # A block without an id is a copy for another workspace, so the name of the saved block would be wrong.
        saved_as = value._block_document_id and value._block_document_name  # noqa: SLF001 - no public names
        return (
            f"{value.get_block_type_slug()}/{saved_as}" if saved_as else f"{type(value).__name__}, not saved"
        )
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, (list, tuple)):
        return [stored(name, each) for each in value]
    if not isinstance(value, Mapping):
        _check(name, value)
        return value
    if name in _OF_BLOCKS and set(value) != {"$ref"}:
        msg = f"{name} has the values of a block. Prefect would store these values and secrets in plain text."
        raise BoltRequestError(
            msg, guidance=f"No request was sent to Bolt. Save the block, and give the block's name as {name}."
        )
    return {each: stored(str(each), inner) for each, inner in value.items()}


def _check(name: str, value: object) -> None:
    """Refuse a number or a text that Prefect cannot store, with a clearer message than Prefect's own."""
    guidance = f"No request was sent to Bolt. Give {name} as a smaller number."
    if isinstance(value, int) and not -_64_BITS <= value < _64_BITS:
        msg = f"{name} does not fit into 64 bits."
    elif isinstance(value, float) and not isfinite(value):
        msg, guidance = (
            f"{name} is {value}.",
            f"No request was sent to Bolt. Give {name} as a number, or leave it out.",
        )
    elif isinstance(value, str) and (broken := _BROKEN.search(value)):
        msg = f"{name} contains {broken[0]!a}, which is not a valid character."
        guidance = f"No request was sent to Bolt. Type {name} again."
    else:
        return
    raise BoltRequestError(msg, guidance=guidance)
