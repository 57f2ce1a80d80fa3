"""Which credentials the simulator accepts, and what they allow."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .reply import Reply

# A client that sends these headers to an object store has a bug.
CREDENTIAL_HEADERS = ("x-api-key", "x-api-secret", "authorization", "x-paradime-workspace")


@dataclass(frozen=True)
class Access:
    """The valid credentials, and what they allow."""

    api_key: str
    api_secret: str
    bearer: str | None
    workspace_uid: str
    read_only: Literal[False, "status", "graphql"]

    def refuse(self, headers: Mapping[str, str]) -> Reply | None:
        """Return the response to a request with wrong credentials; None if the credentials are right."""
        wanted = {"authorization": f"Bearer {self.bearer}"}
        if self.bearer is None:
            wanted = {"x-api-key": self.api_key, "x-api-secret": self.api_secret}
        given = ((headers.get(name, ""), value) for name, value in wanted.items())
        if not all(hmac.compare_digest(there.encode(), here.encode()) for there, here in given):
            return Reply.of_error(401, "Invalid API credentials.")
        # Status 403 for a wrong workspace is an inference.
        selects = self.bearer is not None and self.bearer.startswith("prdm_cmp_")
        if selects and headers.get("x-paradime-workspace") != self.workspace_uid:
            return Reply.of_error(
                403, "The X-Paradime-Workspace header names no workspace that this token can use."
            )
        return None
