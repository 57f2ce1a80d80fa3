"""The `ParadimeCredentials` block: the endpoint of a Bolt workspace and the credentials for it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.blocks.abstract import CredentialsBlock
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from typing_extensions import Self

from paradime_blocks.branding import DOCUMENTATION_URL, LOGO_URL
from paradime_blocks.client import ConnectionSettings, auth_for
from paradime_blocks.client.auth import (
    COMPANY_TOKEN_PREFIX,
    ENDPOINT_EXAMPLE,
    BoltAuth,
    check_credentials,
    check_endpoint,
    check_proxy,
)
from paradime_blocks.credentials_check import CHECK_POLICY, CredentialsCheck, check
from paradime_blocks.errors import BoltError, BoltRequestError
from paradime_blocks.options import Plain
from paradime_blocks.settings import ParadimeSettings, read_settings
from paradime_blocks.sync import sync_form
from paradime_blocks.text.reasons import reasons
from paradime_blocks.text.redaction import passwords_in

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

_VARIABLES = "the environment (PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET)"
_WHO_AND_WHERE = ("api_endpoint", "api_key", "api_secret", "workspace_uid")


@functools.lru_cache(maxsize=1)
def _of_the_environment(*_: object) -> ParadimeCredentials | None:
    """Return the credentials from the environment, from a cache.

    Without the cache, reading the credentials for every client would take most of a wait's time. The arguments show
    whether the environment has changed: if one of them changes, the credentials are read again.
    """
    try:
        return ParadimeCredentials.from_env()
    except BoltError:
        return None


def _in_the_schema(pattern: str, *, least: int = 1) -> dict[str, Any]:
    """Return the entries of the block's schema that make Prefect's server check a field against a pattern.

    Prefect's server knows the block's schema, but not the block's validators. With the pattern, the server also checks
    credentials that people type into the form of a deployment. (As of Prefect 3.8, the form that creates a block checks
    only whether the required fields are filled in.) The pattern is not a constraint of the pydantic field. Pydantic
    would check a constraint first, and only the messages of the validators say what to type.
    """
    return {"pattern": pattern, "minLength": least}


class ParadimeCredentials(CredentialsBlock):
    """Credentials for the Bolt API of a Paradime workspace.

    Args:
        api_endpoint: The workspace's GraphQL endpoint.
        api_key: The API key. No key is needed if `api_secret` is a token.
        api_secret: The API secret, or a token that begins with `prdm_wsp_` or `prdm_cmp_`.
        workspace_uid: The uid of the workspace that a company token acts on.
        proxy: The URL of a proxy. `none` means no proxy. None means the proxy that the environment sets, if any.
        ca_bundle: The path of a PEM file with certificates to trust in addition to the default certificates.
        request_timeout_seconds: How long one request may take, in seconds.

    Raises:
        pydantic.ValidationError: A field is invalid; the message says what to type.

    Example:
        Load saved credentials and run a schedule with them:
        ```python
        from paradime_blocks import ParadimeCredentials
        from paradime_flows.run_schedule import run_schedule

        credentials = ParadimeCredentials.load("BLOCK_NAME")
        run_schedule("daily", credentials)
        ```
    """

    _block_type_name = "Paradime Credentials"
    _block_type_slug = "paradime-credentials"
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    _description = "The Bolt API of a Paradime workspace, and the key pair or token for it."

    model_config: ClassVar[Any] = {"hide_input_in_errors": True}

    api_endpoint: str = Field(
        default=...,
        title="API endpoint",
        description="The workspace's GraphQL endpoint, copied from the Paradime workspace settings.",
        examples=[ENDPOINT_EXAMPLE],
        json_schema_extra=_in_the_schema(r"^\s*(https://|http://(localhost|127\.|\[::1\]))[^\s<>]+\s*$"),
    )
    api_key: Plain[SecretStr] = Field(
        default=None,
        title="API key",
        description="The API key that belongs to the secret. Leave this field empty if you use a token.",
        json_schema_extra=_in_the_schema(r"^[!-~]*$", least=0),
    )
    api_secret: SecretStr = Field(
        default=...,
        title="API secret or token",
        description=(
            "The API secret, or a token that begins with prdm_wsp_ (workspace) or prdm_cmp_ (company)."
        ),
        json_schema_extra=_in_the_schema(r"^[!-~]+$"),
    )
    workspace_uid: Plain[str] = Field(
        default=None,
        title="Workspace uid",
        description="The uid of the workspace to act on. Only a company token (prdm_cmp_) needs a uid.",
        json_schema_extra=_in_the_schema(r"^\s*[!-~]*\s*$", least=0),
    )
    # The proxy's URL may hold a password.
    proxy: Plain[SecretStr] = Field(
        default=None,
        title="Proxy",
        description=(
            "The URL of a proxy, such as http://proxy.internal:3128. Type none to use no proxy. "
            "If this field is empty, the worker uses the proxy that its environment sets, if any."
        ),
        json_schema_extra=_in_the_schema(r"^\s*([Nn][Oo][Nn][Ee]|(https?|socks5h?)://\S+)?\s*$", least=0),
    )
    ca_bundle: Plain[str] = Field(
        default=None,
        title="CA bundle",
        description=(
            "The path, on the worker, of a PEM file with certificates to trust in addition to the default "
            "certificates, for example the certificate of a proxy that inspects TLS."
        ),
    )
    request_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        title="Request timeout",
        description="How long one request to Bolt may take, in seconds, 600 at most.",
    )

    @field_validator("api_endpoint")
    @classmethod
    def _endpoint_is_fit(cls, value: str) -> str:
        return check_endpoint(value)

    @field_validator("workspace_uid", "proxy", "ca_bundle", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        # Prefect's form sends an empty text for an empty field.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("proxy")
    @classmethod
    def _proxy_is_fit(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check_proxy(value.get_secret_value()))

    @model_validator(mode="after")
    def _credentials_go_together(self) -> Self:
        key = self.api_key.get_secret_value() if self.api_key else None
        check_credentials(key, self.api_secret.get_secret_value(), self.workspace_uid)
        return self

    @classmethod
    def from_env(cls) -> Self:
        """Create credentials from the `PARADIME_*` environment variables and the file `.env`, without saving a block.

        Returns:
            The credentials.

        Raises:
            BoltRequestError: A variable is missing or invalid; the message names the variable.

        Example:
            ```python
            import os
            from paradime_blocks import ParadimeCredentials

            os.environ["PARADIME_API_ENDPOINT"] = "https://api.paradime.io/api/v1/acme/graphql"
            os.environ["PARADIME_API_SECRET"] = "prdm_wsp_my-token"
            credentials = ParadimeCredentials.from_env()
            ```
        """
        try:
            settings, unread = read_settings(ParadimeSettings)
        except ValidationError as error:
            raise _environment_error(error) from None
        given = {name: value for name, value in settings.model_dump().items() if value is not None}
        missing = [_variable(name) for name in ("api_endpoint", "api_secret") if name not in given]
        if missing:
            msg = f"No credentials: the environment does not set {' and '.join(missing)}."
            guidance = " ".join(
                [
                    *filter(None, [unread]),
                    "Set the variables, or pass a ParadimeCredentials block as `credentials`.",
                ]
            )
            raise BoltRequestError(msg, guidance=guidance)
        try:
            return cls(**given)
        except ValidationError as error:
            raise _environment_error(error) from None

    def for_workspace(self, workspace_uid: str) -> Self:
        """Return the same credentials for another workspace of the company. The saved block does not change.

        Args:
            workspace_uid: The uid of the workspace.

        Returns:
            The new credentials, which are not saved as a block.

        Raises:
            BoltRequestError: The credentials are not a company token (`prdm_cmp_`). Only a company token opens several
                workspaces.
            pydantic.ValidationError: The uid is invalid.

        Example:
            ```python
            from paradime_blocks import ParadimeCredentials

            company = ParadimeCredentials(
                api_endpoint="https://api.paradime.io/api/v1/acme/graphql",
                api_secret="prdm_cmp_my-token",
                workspace_uid="finance",
            )
            assert company.for_workspace("marketing").workspace_uid == "marketing"
            ```
        """
        if not self.api_secret.get_secret_value().startswith(COMPANY_TOKEN_PREFIX):
            msg = f"These credentials ({self.source}) open one workspace only."
            raise BoltRequestError(
                msg, guidance="Use a company token (prdm_cmp_...), or credentials of the other workspace."
            )
        other = type(self)(**{**dict(self), "workspace_uid": workspace_uid})
        # Hooks in other processes load the secret from the saved block, so the block's name is copied. The block's id
        # is not copied: Prefect would store the id instead of these credentials, and the new workspace would be lost.
        other._block_document_name = self._block_document_name  # noqa: SLF001 - of the same class
        return other

    @property
    def source(self) -> str:
        """A name of the place where these credentials are stored, for messages."""
        if self._block_document_name:
            return f"block 'paradime-credentials/{self._block_document_name}'"
        if self._is_anonymous or self._block_document_id:
            return "an unnamed ParadimeCredentials block"
        return _VARIABLES if self._comes_from_environment() else "the ParadimeCredentials given in code"

    def _comes_from_environment(self) -> bool:
        variables = frozenset(each for each in os.environ.items() if each[0].upper().startswith("PARADIME_"))
        file = Path(".env").absolute()
        if not variables and not file.exists():
            return False
        changed_at = file.stat().st_mtime_ns if file.exists() else None
        theirs = _of_the_environment(variables, file, changed_at)
        return theirs is not None and all(
            getattr(self, name) == getattr(theirs, name) for name in _WHO_AND_WHERE
        )

    def get_client(self, **options: Any) -> BoltClient:
        """Return a client with these credentials. Use the client as an async context manager.

        Args:
            options: Options of `BoltClient`, such as `retry_policy`.

        Returns:
            The client, which is not open yet: `async with` opens the client.
        """
        from paradime_blocks.client import BoltClient  # noqa: PLC0415 - only now its many modules are needed

        settings = ConnectionSettings(
            self.api_endpoint,
            self._auth(),
            proxy=self.proxy.get_secret_value() if self.proxy else None,
            ca_bundle=self.ca_bundle,
            request_timeout_seconds=self.request_timeout_seconds,
            source=self.source,
        )
        return BoltClient(settings, **options)

    def _auth(self) -> BoltAuth:
        return auth_for(self.api_key, self.api_secret, self.workspace_uid)

    def secrets(self) -> list[str | SecretStr]:
        """Return the secrets, which are removed from each message, log and artifact."""
        key = [self.api_key] if self.api_key else []
        proxy = self.proxy.get_secret_value() if self.proxy else None
        return [*key, *self._auth().secrets(), *passwords_in(proxy)]

    async def acheck(self) -> CredentialsCheck:
        """Check whether Bolt accepts these credentials. The check starts nothing and changes nothing in Bolt.

        The check reads one schedule. Then the check sends a mutation that does nothing: `@skip` leaves out the
        mutation's only field. If the key may only read, some servers refuse even this mutation, and the status is
        `read_only`. If the server does not refuse the mutation, `may_trigger` is None: only the first trigger shows
        whether the key may trigger.

        Returns:
            The result of the check, with a message that says what to do.

        Example:
            ```python
            from paradime_blocks import ParadimeCredentials
            from paradime_blocks.testing import BoltSimulator

            with BoltSimulator() as simulator:
                credentials = ParadimeCredentials(
                    api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret="wrong"
                )
                assert credentials.check().status == "bad_key"
            ```
        """
        return await check(self.get_client(retry_policy=CHECK_POLICY), self.source)

    check = sync_form(acheck)  # type: ignore[pydantic-field]


def _variable(field: str) -> str:
    """Return the name of the environment variable that sets a field of the block."""
    return f"PARADIME_{field.upper()}"


def _environment_error(error: ValidationError) -> BoltRequestError:
    """Return the error for invalid environment variables. The error contains their names, but not their values."""
    msg = f"The PARADIME_* environment variables are invalid: {reasons(error, _variable)}."
    return BoltRequestError(msg, guidance="Nothing was sent.")
