from __future__ import annotations

from typing import TYPE_CHECKING

from paradime_blocks.client.auth import auth_for
from paradime_blocks.client.connection_settings import ConnectionSettings

if TYPE_CHECKING:
    from paradime_blocks.client.bolt_client import BoltClient
else:

    def __getattr__(name: str) -> object:
        # The client is a third of what this package imports. Whoever imports a block may not need it.
        if name == "BoltClient":
            from paradime_blocks.client.bolt_client import BoltClient  # noqa: PLC0415

            return BoltClient
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


__all__ = ["BoltClient", "ConnectionSettings", "auth_for"]
