"""Removes secrets from text that comes from Bolt, before the text reaches Prefect.

This module replaces the credentials in use, the signatures of signed URLs, and passwords in URLs (`git clone
https://user:token@...`). The time that the removal takes grows only linearly with the length of the text.

Secrets are removed before the text is cut. If the text were cut first, a part of a secret could stay in the text, and
this module would not recognise that part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from paradime_blocks.text.rendering import clean, one_line

if TYPE_CHECKING:
    from paradime_blocks.models import BoltRunStatus

REMOVED: Final = "[removed]"
# A shorter secret is a part of many ordinary words. If it were removed from them, nobody could read the text.
_SHORTEST_SECRET: Final = 6
_LONGEST_USER: Final = 20
# White space, quotes and brackets end a URL in plain text, JSON and markdown.
_WORD: Final = re.compile(r"[^\s\"'<>]+")
# The user part ends at the last "@" before the path, since a password may contain "@".
_USER: Final = re.compile(r"://([^\s/?#\"'<>]+)@")
_SIGNED: Final = re.compile(
    r"(?:signature|token|credential|secret|password|api[-_]?key)=|(?<![a-z])sig=", re.IGNORECASE
)
_SIGNATURE: Final = re.compile(
    r"(x-(?:amz|goog)-(?:signature|credential|security-token)=)[^\s&\"'<>]+", re.IGNORECASE
)
# Colour codes and redrawn lines, which `clean` removes, may be most of a text. So more than the limit is read.
_SEEN_TO_SHOWN: Final = 5
_DEPTH: Final = 6
_ENTRIES: Final = 20


class HasSecrets(Protocol):
    """An object that has secrets: a credentials block, or the settings of a connection."""

    def secrets(self) -> Iterable[str | SecretStr]:
        """Return the secrets, which are removed from each message, log and artifact."""


def passwords_in(url: str | None) -> list[str]:
    """Return the password in a URL, both percent-encoded and decoded."""
    password = urlsplit(url).password if url else None
    return [password, unquote(password)] if password else []


class Redactor:
    """Removes secrets from text.

    Args:
        secrets: The secrets; texts that are empty or too short to be a secret are ignored.

    Example:
        >>> Redactor(["s3cret-value"])("key=s3cret-value https://x.test/a?X-Amz-Signature=ab")
        'key=[removed] https://x.test/a?[removed]'
    """

    def __init__(self, secrets: Iterable[str | SecretStr]) -> None:
        known = set()
        for secret in secrets:
            value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
            if len(value) >= _SHORTEST_SECRET:
                known |= {value, quote(value, safe="")}
        # The longest secret comes first: if a secret is the beginning of a longer secret, the longer one is removed
        # completely.
        words = sorted(known, key=lambda word: (-len(word), word))
        self._secrets = re.compile("|".join(map(re.escape, words))) if words else None

    @classmethod
    def of(cls, credentials: HasSecrets) -> Redactor:
        """Return a redactor for the secrets of credentials: the key, the secret and the proxy's password."""
        return cls(credentials.secrets())

    def __call__(self, text: str) -> str:
        """Return the text without secrets. The rest of the text and its lines do not change."""
        if self._secrets is not None:
            text = self._secrets.sub(REMOVED, text)
        if "://" in text:
            lines = text.split("\n")
            text = "\n".join(_WORD.sub(_address, line) if "://" in line else line for line in lines)
        return _SIGNATURE.sub(rf"\1{REMOVED}", text) if "=" in text else text

    def line(self, text: str, limit: int = 200) -> str:
        """Return the text on one line and without secrets, for a message.

        Args:
            text: Any text.
            limit: The largest length of the line, in characters.
        """
        return one_line(self(clean(text)), limit)

    def tail(self, text: str, limit: int) -> str:
        """Return the end of a text, without secrets, escape codes and control characters.

        Args:
            text: Any text, of any length.
            limit: The largest length of the result, in characters.
        """
        start = len(text) - limit * _SEEN_TO_SHOWN
        if start > 0:
            # No secret contains white space, so no secret is cut here.
            text = text[max(text.rfind("\n", 0, start), text.rfind(" ", 0, start)) + 1 :]
        return self(clean(text)).strip()[-limit:].strip()

    def data(self, value: Any, limit: int = 500, depth: int = _DEPTH) -> Any:
        """Return JSON data without secrets. Each text is on one line; the length and the depth of the data are limited.

        Args:
            value: A value that was read from JSON.
            limit: The largest length of each text, in characters.
            depth: How many levels of lists and objects are kept. A value below the last level becomes text.
        """
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if depth > 0 and isinstance(value, dict):
            entries = list(value.items())[:_ENTRIES]
            return {self.line(str(name)): self.data(each, limit, depth - 1) for name, each in entries}
        if depth > 0 and isinstance(value, (list, tuple)):
            return [self.data(each, limit, depth - 1) for each in value[:_ENTRIES]]
        return self.line(str(value), limit)

    def status(self, status: BoltRunStatus) -> BoltRunStatus:
        """Return a Bolt run's status without secrets. For example, a command may contain a password in a URL."""
        commands = [
            command.model_copy(
                update={name: self(getattr(command, name)) for name in ("command", "stdout", "stderr")}
            )
            for command in status.commands
        ]
        return status.model_copy(update={"commands": commands})


def _address(match: re.Match[str]) -> str:
    """Return a word without the secrets of the URLs in it."""
    word = match[0]
    if "://" not in word:
        return word
    head, mark, query = _USER.sub(_user, word).partition("?")
    return f"{head}?{REMOVED}" if mark and _SIGNED.search(query) else f"{head}{mark}{query}"


def _user(match: re.Match[str]) -> str:
    """Return the user part of a URL without its password. A short user name stays, as in `ssh://git@...`."""
    user = match[1]
    return f"://{REMOVED}@" if ":" in user or len(user) > _LONGEST_USER else match[0]
