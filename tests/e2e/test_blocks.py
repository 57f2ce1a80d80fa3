"""Blocks saved in Prefect."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentCreate

from paradime_blocks import BoltRequestError, ParadimeCredentials
from paradime_flows.prefect_api.inputs import resolve_credentials

pytestmark = pytest.mark.e2e


ENDPOINT = "https://api.paradime.io/api/v1/acme/graphql"


FIELDS: dict[str, Any] = {"api_endpoint": ENDPOINT, "api_key": "a-key", "api_secret": "a-secret"}


@pytest.mark.parametrize(
    "data, texts",
    [
        pytest.param(
            {"api_endpoint": "http://api.paradime.io/g", "api_key": "k", "api_secret": "a-secret"},
            ["api_endpoint must begin with https://", "copy it from"],
            id="endpoint",
        ),
        pytest.param(
            {"api_endpoint": ENDPOINT, "api_key": "", "api_secret": "a-secret"},
            ["api_key is empty: type the API key"],
            id="key",
        ),
        pytest.param(
            {**FIELDS, "request_timeout_seconds": -1},
            ["request_timeout_seconds: Input should be greater than 0"],
            id="time",
        ),
    ],
)
async def test_the_error_for_an_invalid_ui_block_names_block_and_field(prefect_server, data, texts):
    """Prefect's UI creates blocks without running our validators; the flow that loads such a block must explain."""
    name = f"made-in-the-ui-{uuid4().hex[:8]}"
    await ParadimeCredentials.register_type_and_schema()
    async with get_client() as client:
        block_type = await client.read_block_type_by_slug("paradime-credentials")
        schema = await client.read_block_schema_by_checksum(ParadimeCredentials._calculate_schema_checksum())
        document = BlockDocumentCreate(
            name=name, data=data, block_type_id=block_type.id, block_schema_id=schema.id
        )
        made = await client.create_block_document(document)
        try:
            with pytest.raises(BoltRequestError) as caught:
                await resolve_credentials(name)
        finally:
            await client.delete_block_document(made.id)
    assert [text for text in (f"'{name}'", *texts) if text not in str(caught.value)] == []
    assert "a-secret" not in str(caught.value)
    assert "validate=False" not in str(caught.value)
