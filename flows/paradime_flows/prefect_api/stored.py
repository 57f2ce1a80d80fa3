"""What Prefect may store of a flow run's parameters: names of blocks, never the values in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from prefect.blocks.core import Block
from pydantic import BaseModel

from paradime_blocks import BoltRequestError

_64_BITS = 2**63
# NUL, and the half of a character that broken decoding leaves: no database and no UTF-8 takes them.
_BROKEN = re.compile(r"[\x00\ud800-\udfff]")
_OF_BLOCKS = frozenset({"credentials", "schedule_name", "storage"})


def stored(name: str, value: object) -> Any:
    """Return a parameter as it is to be stored, where everybody may read it.

    Args:
        name: The parameter's name, for the error.
        value: Its value in a call.

    Raises:
        BoltRequestError: The values of a block are given by themselves, secrets included; or a number or a text is
            one that Prefect cannot store.
    """
    if isinstance(value, Block):
        # Without an id it is a copy for another workspace, for which its block's name must not stand.
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
        msg = f"{name} holds the values of a block. Prefect would store them in plain text, secrets included."
        raise BoltRequestError(msg, guidance=f"Nothing was sent. Save a block, and give its name as {name}.")
    return {each: stored(str(each), inner) for each, inner in value.items()}


def _check(name: str, value: object) -> None:
    """Refuse a number or a text that is in no JSON of Prefect's, before Prefect does in its own words."""
    guidance = f"Nothing was sent. Give {name} as a smaller number."
    if isinstance(value, int) and not -_64_BITS <= value < _64_BITS:
        msg = f"{name} is larger than 64 bits hold."
    elif isinstance(value, float) and not isfinite(value):
        msg, guidance = f"{name} is {value}.", f"Nothing was sent. Give {name} as a number, or leave it out."
    elif isinstance(value, str) and (broken := _BROKEN.search(value)):
        msg = f"{name} holds {broken[0]!a}, which is no character."
        guidance = f"Nothing was sent. Type {name} again."
    else:
        return
    raise BoltRequestError(msg, guidance=guidance)
