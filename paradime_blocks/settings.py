"""The `PARADIME_*` environment variables, also from a `.env` file."""

from __future__ import annotations

from typing import TypeVar

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Settings = TypeVar("Settings", bound=BaseSettings)


class ParadimeSettings(BaseSettings):
    """What the environment and `.env` say; the names are those that the vendor's own tools read (`facts.md`).

    Example:
        ```python
        import os
        from paradime_blocks.settings import ParadimeSettings

        os.environ["PARADIME_API_ENDPOINT"] = "https://api.paradime.io/api/v1/acme/graphql"
        assert ParadimeSettings().api_endpoint.endswith("/acme/graphql")
        ```
    """

    model_config = SettingsConfigDict(
        env_prefix="PARADIME_",
        env_file=".env",
        # Also without the mark that some editors put at the beginning of UTF-8.
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    api_endpoint: str | None = None
    api_key: SecretStr | None = None
    api_secret: SecretStr | None = None
    workspace_uid: str | None = None
    proxy: SecretStr | None = None
    ca_bundle: str | None = None
    request_timeout_seconds: float | None = None


def read_settings(kind: type[Settings]) -> tuple[Settings, str]:
    """Read settings from the environment and `.env`, or from the environment alone if `.env` cannot be read.

    A `.env` may be another tool's: what the environment itself sets needs no file.

    Args:
        kind: The class of the settings.

    Returns:
        The settings, and why `.env` was not read, as a sentence; empty if it was, or if there is none.

    Raises:
        pydantic.ValidationError: A setting is invalid.
    """
    try:
        return kind(), ""
    except UnicodeDecodeError:
        why = "it is not in UTF-8"
    except OSError as error:
        why = error.strerror or type(error).__name__
    return kind(_env_file=None), f"The file .env in the working directory was not read: {why}."
