"""The secret in the address of a webhook: it is compared in constant time, and never logged."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Sequence
from typing import Any, Final

SECRET_VARIABLE: Final = "PARADIME_WEBHOOK_SECRET"  # noqa: S105 - its name
_SHORTEST: Final = 16
# The characters that an address can contain without an escape.
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._~-]+")
_IN_PATH: Final = re.compile(r"(/hooks/)[^\s/?\"]+")


def parse_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets of a text with commas between them.

    Raises:
        ValueError: There is no secret, or a secret is too short or does not fit into an address.
    """
    found = tuple(secret for secret in (part.strip() for part in text.split(",")) if secret)
    make = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
    if not found:
        msg = f"{SECRET_VARIABLE} is empty or not set. {make}"
        raise ValueError(msg)
    if any(len(secret) < _SHORTEST or not _CHARACTERS.fullmatch(secret) for secret in found):
        msg = (
            f"A secret in {SECRET_VARIABLE} is shorter than {_SHORTEST} characters, or has characters other than"
            f" letters, digits and ._~-. {make}"
        )
        raise ValueError(msg)
    return found


def is_secret(given: str, secrets: Sequence[str]) -> bool:
    """Whether a text is one of the secrets. The time that the check takes shows nothing about the secrets."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())
    return found


class HidePath(logging.Filter):
    """Hides the secret in the lines of uvicorn's access log, which hold the path of each request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(each) for each in record.args)
        record.msg = _hidden(record.msg)
        return True


def _hidden(value: Any) -> Any:
    return _IN_PATH.sub(r"\1***", value) if isinstance(value, str) else value


def hide_secrets_in_access_log() -> None:
    """Keep the secrets out of uvicorn's access log, whoever starts uvicorn."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(each, HidePath) for each in log.filters):
        log.addFilter(HidePath())
