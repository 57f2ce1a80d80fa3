"""The blocks: their fields, their sources, their check, their look in the UI."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr

from paradime_blocks import BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.client import auth_for

ENDPOINT = "https://api.paradime.io/api/v1/acme/graphql"
FIELDS: dict[str, Any] = {"api_endpoint": ENDPOINT, "api_key": "a-key", "api_secret": "a-secret"}


class TestCredentialsMeetPrefectsStandard(BlockStandardTestSuite):
    """Prefect's own test suite for blocks; its test of the logo needs the network and Pillow."""

    test_has_a_valid_image = None

    @pytest.fixture
    def block(self) -> type[Block]:
        return ParadimeCredentials


class TestScheduleMeetsPrefectsStandard(BlockStandardTestSuite):
    """The same for the schedule."""

    test_has_a_valid_image = None

    @pytest.fixture
    def block(self) -> type[Block]:
        return BoltSchedule


BLOCKS = pytest.mark.parametrize("block", [ParadimeCredentials, BoltSchedule])


def test_a_company_token_acts_on_another_workspace():
    """All else stays; hooks can load the block by its name, but it is not taken for the saved block itself."""
    company = ParadimeCredentials(
        api_endpoint=ENDPOINT, api_secret="prdm_cmp_t", workspace_uid="w1", proxy="none", ca_bundle="/ca.pem"
    )
    company._block_document_name, company._block_document_id = "production", uuid4()
    other = company.for_workspace("w2")
    assert dict(other) == {**dict(company), "workspace_uid": "w2"}
    assert other.get_client().settings.auth == auth_for(None, "prdm_cmp_t", "w2")
    assert (other._block_document_name, other._block_document_id) == ("production", None)
    assert company.workspace_uid == "w1"


@pytest.mark.parametrize(
    "fields", [FIELDS, {"api_endpoint": ENDPOINT, "api_secret": "prdm_wsp_t"}], ids=["key pair", "token"]
)
def test_a_key_of_one_workspace_is_not_used_for_another(fields):
    """Bolt would not be told of the other workspace, and the runs of the first would be triggered."""
    with pytest.raises(BoltRequestError, match="open one workspace only") as raised:
        ParadimeCredentials(**fields).for_workspace("w2")
    assert fields["api_secret"] not in str(raised.value)


@pytest.mark.parametrize("uid", ["", " ", "two words"])
def test_another_workspace_needs_a_valid_uid(uid):
    """An empty one would be that of no workspace."""
    company = ParadimeCredentials(api_endpoint=ENDPOINT, api_secret="prdm_cmp_t", workspace_uid="w1")
    with pytest.raises(ValueError, match="workspace_uid"):
        company.for_workspace(uid)


@BLOCKS
def test_each_field_explains_itself_in_the_ui(block):
    """Each has a title, and at least one full sentence of help."""
    properties = block.model_json_schema()["properties"]
    poor = [
        name
        for name, field in properties.items()
        if not field.get("title") or not field.get("description", "").endswith(".")
    ]
    assert poor == []


@BLOCKS
def test_each_field_with_a_unit_names_it(block):
    """A number without a unit is unclear."""
    properties = block.model_json_schema()["properties"]
    seconds = {name: field["description"] for name, field in properties.items() if name.endswith("_seconds")}
    assert seconds
    assert [name for name, description in seconds.items() if "in seconds" not in description] == []


@BLOCKS
def test_the_code_example_overwrites_no_block(block):
    """Beside a saved block, the UI replaces only the first BLOCK_NAME in it with the block's name."""
    example = block.get_code_example()
    assert example.count("BLOCK_NAME") == 1
    assert '.load("BLOCK_NAME")' in example
    assert ".save(" not in example


@BLOCKS
def test_each_block_has_a_logo_a_description_and_a_page(block):
    """The catalogue of blocks shows them; each is an address that a browser can open."""
    assert str(block._logo_url).startswith("https://")
    assert block.get_description().endswith(".")
    assert str(block._documentation_url).startswith("https://")


@pytest.mark.parametrize(
    "block, slug, secrets",
    [
        pytest.param(
            ParadimeCredentials, "paradime-credentials", ["api_key", "api_secret", "proxy"], id="credentials"
        ),
        pytest.param(
            BoltSchedule,
            "bolt-schedule",
            ["credentials.api_key", "credentials.api_secret", "credentials.proxy"],
            id="schedule",
        ),
    ],
)
def test_secrets_are_shown_as_secrets(block, slug, secrets):
    """Prefect's schema names them, so that the UI hides them and the API never returns them."""
    schema = block.model_json_schema()
    assert sorted(schema["secret_fields"]) == secrets
    assert (schema["block_type_slug"], block.get_block_type_slug()) == (slug, slug)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(FIELDS, id="key pair"),
        pytest.param({"api_endpoint": ENDPOINT, "api_secret": "prdm_wsp_t"}, id="workspace token"),
        pytest.param(
            {"api_endpoint": ENDPOINT, "api_secret": "prdm_cmp_t", "workspace_uid": "w"}, id="company token"
        ),
        pytest.param({**FIELDS, "api_endpoint": f" {ENDPOINT}\n"}, id="space around the endpoint"),
        pytest.param({**FIELDS, "api_endpoint": "http://localhost:4200/graphql"}, id="loopback"),
        pytest.param({**FIELDS, "proxy": "http://user:password@proxy.internal:3128"}, id="proxy"),
        pytest.param({**FIELDS, "proxy": "None"}, id="no proxy"),
        pytest.param({**FIELDS, "proxy": "", "workspace_uid": " "}, id="form fields left empty"),
    ],
)
def test_good_credentials_make_a_client(fields):
    """This covers each form of credentials that Paradime gives out."""
    credentials = ParadimeCredentials(**fields)
    settings = credentials.get_client().settings
    assert settings.api_endpoint == fields["api_endpoint"].strip()
    workspace_uid = (fields.get("workspace_uid") or "").strip() or None
    assert settings.auth == auth_for(fields.get("api_key"), fields["api_secret"], workspace_uid)


def test_a_form_field_left_empty_is_absent():
    """The UI sends an empty text."""
    credentials = ParadimeCredentials(**FIELDS, proxy="", workspace_uid="  ")
    assert (credentials.proxy, credentials.workspace_uid) == (None, None)
    schedule = BoltSchedule(credentials=credentials, schedule_name="daily", branch=" ", commands=[])
    assert (schedule.branch, schedule.commands) == (None, None)


@pytest.fixture
def environment(monkeypatch):
    """Sets `PARADIME_*` variables."""

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"PARADIME_{name.upper()}", value)

    return set_all


def test_credentials_come_from_the_environment(environment):
    """All fields are read, by the names that the vendor's tools use."""
    environment(**FIELDS, workspace_uid="w", proxy="none", request_timeout_seconds="7.5")
    found = ParadimeCredentials.from_env()
    assert (found.api_endpoint, found.workspace_uid, found.proxy) == (ENDPOINT, "w", SecretStr("none"))
    assert (found.api_key, found.api_secret) == (SecretStr("a-key"), SecretStr("a-secret"))
    assert found.request_timeout_seconds == 7.5
    assert "PARADIME_API_SECRET" in found.source


def test_credentials_come_from_dotenv():
    """The file is read from the current folder; variables of other programs in it do not matter."""
    lines = [f"PARADIME_{name.upper()}={value}" for name, value in FIELDS.items()]
    Path(".env").write_text("\n".join([*lines, "OTHER=1", "PARADIME_SOMETHING_ELSE=1"]))
    assert ParadimeCredentials.from_env().api_secret == SecretStr("a-secret")


def test_the_environment_overrides_dotenv(environment):
    """A variable set for this process has priority."""
    Path(".env").write_text("PARADIME_API_KEY=from-the-file\nPARADIME_API_SECRET=from-the-file")
    environment(api_endpoint=ENDPOINT, api_secret="from-the-environment")
    found = ParadimeCredentials.from_env()
    assert found.api_secret == SecretStr("from-the-environment")
    assert found.api_key == SecretStr("from-the-file")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_dotenv_is_read_with_and_without_a_mark_of_its_encoding(encoding):
    """Some editors start a file with one."""
    lines = [f"PARADIME_{name.upper()}={value}" for name, value in FIELDS.items()]
    Path(".env").write_text("\n".join(lines), encoding=encoding)
    assert ParadimeCredentials.from_env().api_endpoint == ENDPOINT


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_dotenv_of_another_tool_does_not_matter(environment, encoding):
    """Values from the environment need no file."""
    Path(".env").write_text("# gültig für alle\nOTHER=1\n", encoding=encoding)
    environment(**FIELDS)
    found = ParadimeCredentials.from_env()
    assert found.api_endpoint == ENDPOINT
    assert "PARADIME_API_SECRET" in found.source


def test_a_dotenv_that_is_needed_and_cannot_be_read_is_named():
    """PowerShell can write such a file."""
    lines = [f"PARADIME_{name.upper()}={value}" for name, value in FIELDS.items()]
    Path(".env").write_text("\n".join(lines), encoding="utf-16")
    with pytest.raises(BoltRequestError, match=r"file \.env .* not in UTF-8"):
        ParadimeCredentials.from_env()


def test_an_empty_variable_is_absent(environment):
    """CI systems set an empty variable when they have no value for it."""
    environment(api_endpoint=ENDPOINT, api_secret="prdm_wsp_t", api_key="", proxy="")
    found = ParadimeCredentials.from_env()
    assert (found.api_key, found.proxy) == (None, None)


@pytest.mark.parametrize(
    "values, message",
    [
        pytest.param(
            {},
            ["does not set PARADIME_API_ENDPOINT and PARADIME_API_SECRET", "ParadimeCredentials"],
            id="nothing",
        ),
        pytest.param({"api_endpoint": ENDPOINT}, ["does not set PARADIME_API_SECRET."], id="no secret"),
        pytest.param(
            {**FIELDS, "api_endpoint": "api.paradime.io"}, ["PARADIME_API_ENDPOINT: ", "https"], id="endpoint"
        ),
        pytest.param({**FIELDS, "api_key": ""}, ["api_key is empty"], id="no key"),
        pytest.param({**FIELDS, "proxy": "proxy:3128"}, ["PARADIME_PROXY: ", "http://host:port"], id="proxy"),
        pytest.param(
            {**FIELDS, "request_timeout_seconds": "soon"},
            ["PARADIME_REQUEST_TIMEOUT_SECONDS: ", "valid number"],
            id="no number",
        ),
        pytest.param(
            {**FIELDS, "request_timeout_seconds": "-1"},
            ["PARADIME_REQUEST_TIMEOUT_SECONDS: ", "greater than 0"],
            id="impossible number",
        ),
    ],
)
def test_the_error_for_a_bad_environment_names_its_variables(environment, values, message):
    """The message names the variable and what to set, and never shows its value."""
    environment(**values)
    with pytest.raises(BoltRequestError) as caught:
        ParadimeCredentials.from_env()
    assert [text for text in message if text not in str(caught.value)] == []
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "field, good, wrong",
    [
        pytest.param(
            "api_endpoint",
            [ENDPOINT, f" {ENDPOINT}\n", "http://localhost:4200/graphql", "http://127.0.0.1/g"],
            ["", "api.paradime.io", "http://api.paradime.io/g", "https://a/<workspace>/g", "https://a/b c"],
            id="endpoint",
        ),
        pytest.param("api_secret", ["s", "prdm_wsp_t"], ["", "two words", "schlüssel"], id="secret"),
        pytest.param("api_key", ["", "k"], ["two words", "a\nb"], id="key"),
        pytest.param("workspace_uid", ["", " ", "w-1"], ["two words"], id="workspace"),
        pytest.param(
            "proxy", ["", "none", "http://u:p@proxy:3128"], ["proxy:3128", "ftp://proxy"], id="proxy"
        ),
    ],
)
def test_the_schema_refuses_what_the_block_refuses(field, good, wrong):
    """Prefect's server checks a deployment's parameters; it knows only length and pattern."""
    schema = ParadimeCredentials.model_json_schema()["properties"][field]

    def fits(value: str) -> bool:
        return len(value) >= schema["minLength"] and re.search(schema["pattern"], value) is not None

    assert [fits(value) for value in [*good, *wrong]] == [True] * len(good) + [False] * len(wrong)
    others = {**FIELDS, "api_secret": "prdm_wsp_t"} if field == "api_key" else FIELDS
    for value in good:
        ParadimeCredentials(**{**others, field: value})
    for value in wrong:
        with pytest.raises(ValueError, match=field):
            ParadimeCredentials(**{**others, field: value})


def test_messages_name_the_source_of_the_credentials(environment):
    """A block by its name, the environment by its variables, or else the code."""
    block = ParadimeCredentials(**FIELDS)
    assert block.source == "the ParadimeCredentials given in code"
    block._block_document_name = "production"
    assert block.source == "block 'paradime-credentials/production'"
    environment(**FIELDS)
    assert "PARADIME_API_KEY" in ParadimeCredentials(**FIELDS).source
    other = ParadimeCredentials(**{**FIELDS, "api_key": "another"})
    assert other.source == "the ParadimeCredentials given in code"


def test_a_broken_environment_does_not_hide_another_message(environment):
    """The source of credentials given in code is named even if the environment cannot be read."""
    environment(request_timeout_seconds="soon")
    assert ParadimeCredentials(**FIELDS).source == "the ParadimeCredentials given in code"


def test_a_block_is_json_with_its_secrets_hidden():
    """An API or a log shows this JSON."""
    message = json.loads(ParadimeCredentials(**FIELDS).model_dump_json())
    assert message["api_endpoint"] == ENDPOINT
    assert set(message["api_secret"]) == {"*"}


def test_the_environment_is_read_again_only_if_it_has_changed(monkeypatch, tmp_path):
    """Each client needs a name for the place of its credentials, and a wait makes many clients."""
    from paradime_blocks import credentials as module

    reads = []
    read = module.read_settings
    monkeypatch.setattr(module, "read_settings", lambda kind: reads.append(kind) or read(kind))
    monkeypatch.chdir(tmp_path)
    for name, value in FIELDS.items():
        monkeypatch.setenv(f"PARADIME_{name.upper()}", value)
    found = ParadimeCredentials(**FIELDS)
    assert "PARADIME_API_KEY" in found.source
    before = len(reads)
    found.get_client()
    assert len(reads) == before
    monkeypatch.setenv("PARADIME_API_KEY", "another-key")
    assert found.source == "the ParadimeCredentials given in code"
    (tmp_path / ".env").write_text(f"PARADIME_API_KEY={FIELDS['api_key']}")
    monkeypatch.delenv("PARADIME_API_KEY")
    assert "PARADIME_API_KEY" in found.source
