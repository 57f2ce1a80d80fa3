"""The `PARADIME_*` environment variables, also from a `.env` file."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    api_endpoint: str | None = None
    api_key: SecretStr | None = None
    api_secret: SecretStr | None = None
    workspace_uid: str | None = None
    proxy: SecretStr | None = None
    request_timeout_seconds: float | None = None
