"""Who is let in, and to do what."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .reply import Reply

# No object store may ever see these.
CREDENTIAL_HEADERS = ("x-api-key", "x-api-secret", "authorization", "x-paradime-workspace")


@dataclass(frozen=True)
class Access:
    """Which credentials are right, and what they may do."""

    api_key: str
    api_secret: str
    bearer: str | None
    workspace_uid: str
    read_only: Literal[False, "status", "graphql"]

    def refuse(self, headers: Mapping[str, str]) -> Reply | None:
        """The answer to wrong credentials; None if they are right."""
        wanted = {"authorization": f"Bearer {self.bearer}"}
        if self.bearer is None:
            wanted = {"x-api-key": self.api_key, "x-api-secret": self.api_secret}
        given = ((headers.get(name, ""), value) for name, value in wanted.items())
        if not all(hmac.compare_digest(there.encode(), here.encode()) for there, here in given):
            return Reply.of_error(401, "Invalid API credentials.")
        # That a wrong workspace is answered 403 is an inference.
        selects = self.bearer is not None and self.bearer.startswith("prdm_cmp_")
        if selects and headers.get("x-paradime-workspace") != self.workspace_uid:
            return Reply.of_error(
                403, "The X-Paradime-Workspace header names no workspace that this token can use."
            )
        return None
