"""Secrets taken out of text that comes from Bolt, before anybody can read it in Prefect.

Whatever equals one of the credentials in use, the signature of a signed link, and the password in an address
(`git clone https://user:token@...`) are replaced. All of it is linear in the text, hostile or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr

from paradime_blocks.credentials import ParadimeCredentials

REMOVED: Final = "[removed]"
# Less than this is no secret, and would be found in every other word.
_SHORTEST_SECRET: Final = 4
_LONGEST_USER: Final = 20
# White space, quotes and brackets end an address in prose, JSON and markdown.
_WORD: Final = re.compile(r"[^\s\"'<>]+")
_SIGNED: Final = re.compile(r"(?:signature|token|credential)=|(?<![a-z])sig=", re.IGNORECASE)
_SIGNATURE: Final = re.compile(
    r"(x-(?:amz|goog)-(?:signature|credential|security-token)=)[^\s&\"'<>]+", re.IGNORECASE
)


class Redactor:
    """Takes secrets out of text.

    Args:
        secrets: What must not be shown; what is empty or too short to be a secret does not count.

    Example:
        >>> Redactor(["s3cret-value"])("key=s3cret-value https://x.test/a?X-Amz-Signature=ab")
        'key=[removed] https://x.test/a?[removed]'
    """

    def __init__(self, secrets: Iterable[str | SecretStr | None]) -> None:
        known = set()
        for secret in secrets:
            value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
            if value and len(value) >= _SHORTEST_SECRET:
                known |= {value, quote(value, safe="")}
        # The longest first, so that none is left over in part because another is its beginning.
        words = sorted(known, key=lambda word: (-len(word), word))
        self._secrets = re.compile("|".join(map(re.escape, words))) if words else None

    @classmethod
    def of(cls, credentials: ParadimeCredentials) -> Redactor:
        """Return the redactor for what is secret in some credentials."""
        return cls([credentials.api_key, credentials.api_secret])

    def __call__(self, text: str) -> str:
        """Return the text without secrets, line by line the same otherwise."""
        if self._secrets is not None:
            text = self._secrets.sub(REMOVED, text)
        if "://" in text:
            lines = text.split("\n")
            text = "\n".join(_WORD.sub(_address, line) if "://" in line else line for line in lines)
        return _SIGNATURE.sub(rf"\1{REMOVED}", text) if "=" in text else text


def _address(match: re.Match[str]) -> str:
    """Return a word without the secrets of the address in it."""
    word = match[0]
    start = word.find("://")
    if start < 0:
        return word
    start += len("://")
    end = min((at for at in (word.find(mark, start) for mark in "/?#") if at >= 0), default=len(word))
    user, at, _ = word[start:end].rpartition("@")
    if at and (":" in user or len(user) > _LONGEST_USER):
        word = f"{word[:start]}{REMOVED}{word[start + len(user) :]}"
    head, mark, query = word.partition("?")
    return f"{head}?{REMOVED}" if mark and _SIGNED.search(query) else word
