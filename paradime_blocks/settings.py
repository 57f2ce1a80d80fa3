"""The settings in the `PARADIME_*` environment variables and in the file `.env`."""

from __future__ import annotations

from typing import TypeVar

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Settings = TypeVar("Settings", bound=BaseSettings)


class ParadimeSettings(BaseSettings):
    """The settings in the environment and in `.env`. Paradime's own tools read variables with the same names.

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
        # Reads UTF-8 with or without the byte order mark that some editors write at the beginning of a file.
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

    `.env` may belong to another tool, so a file that cannot be read is no error. If the environment has all settings,
    no file is needed.

    Args:
        kind: The class of the settings.

    Returns:
        The settings, and a sentence that says why `.env` was not read. The sentence is empty if `.env` was read or does
        not exist.

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
