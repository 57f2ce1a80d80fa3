"""The client's calls about the files that commands write."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
from pydantic import BaseModel, ConfigDict

from paradime_blocks.client import operations as ops
from paradime_blocks.client.aliased_reads import AliasedReads, sorted_out
from paradime_blocks.client.auth import is_loopback
from paradime_blocks.client.connection_settings import TRUST, is_of_trust
from paradime_blocks.client.inputs import check_id
from paradime_blocks.client.log_filter import queries_unlogged
from paradime_blocks.client.retry import call_with_retries, parse_retry_after
from paradime_blocks.errors import BoltRequestError, BoltUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from paradime_blocks.errors import BoltError

_REDIRECTS_AT_MOST = 5
# At 300 kB a second, the largest file that we read into memory (256 MB) is complete after this time.
DOWNLOAD_SECONDS: Final = 900.0


def _may_be_fetched(url: str) -> bool:
    try:
        return url.startswith("https://") or is_loopback(url)
    except ValueError:
        return False


class _Url(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str


class ResourceCalls(AliasedReads):
    """Calls about the files of commands."""

    async def get_bolt_resource_urls(
        self, resource_ids: Sequence[int], *, errors: dict[int, BoltError] | None = None
    ) -> dict[int, str]:
        """Return the signed URLs of several resources, with as few requests as the backend allows. The URLs expire.

        Args:
            resource_ids: The ids of the resources.
            errors: Receives the error of each resource whose URL Bolt does not return; the key is the
                resource's id. The result does not contain such a resource. Without `errors`, the first error
                is raised.

        Returns:
            The URL of each resource. The key is the resource's id.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        each = [{"resourceId": check_id("resource_id", resource_id)} for resource_id in resource_ids]
        replies = await self._read_each(ops.BOLT_RESOURCE_URL, each, _Url)
        found = sorted_out(dict(zip(resource_ids, replies, strict=True)), errors)
        return {id_: reply.url for id_, reply in found.items()}

    async def get_bolt_resource_url(self, resource_id: int) -> str:
        """Return the signed URL of a resource (Bolt's `boltResourceUrl`). The URL expires.

        Args:
            resource_id: The id of the resource, from a command's `resources`.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        reply = await self._read(
            ops.BOLT_RESOURCE_URL, {"resourceId": check_id("resource_id", resource_id)}, _Url
        )
        return reply.url

    async def download_bolt_resource(self, resource_id: int) -> bytes:
        """Fetch a resource's content from its signed URL. The credentials are not sent to this URL.

        Args:
            resource_id: The id of the resource.

        Raises:
            BoltError: Bolt refused the request, or the content could not be fetched.
        """

        async def fetch() -> bytes:
            # Each attempt asks for a new URL: the previous URL may have expired.
            async with self.stream_bolt_resource(resource_id) as chunks:
                return b"".join([chunk async for chunk in chunks])

        return await call_with_retries(fetch, self.retry_policy, sleep=self._sleep)

    @asynccontextmanager
    async def stream_bolt_resource(
        self, resource_id: int, url: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a resource's content from its signed URL. The credentials are not sent to this URL.

        Args:
            resource_id: The id of the resource.
            url: A signed URL of the resource that has not expired; None to ask Bolt for one.

        Raises:
            BoltError: Bolt refused the request, or the content could not be fetched.
        """
        url = url or await self.get_bolt_resource_url(resource_id)
        facts: dict[str, Any] = {"operation": "resource", "resource_id": resource_id}
        if not _may_be_fetched(url):
            msg = f"Bolt returned no https:// address for resource {resource_id}."
            raise BoltRequestError(msg, **facts)
        seconds = self.settings.request_timeout_seconds
        end = anyio.current_time() + DOWNLOAD_SECONDS
        failure, guidance = "", None
        try:
            async with self.settings.open_http(self._transport, timeout=seconds) as plain:
                with anyio.fail_after(seconds):
                    response = await _follow(plain, url)
                async with aclosing(response):
                    if not response.is_success:
                        # The message does not contain the URL: its signature gives access to the file.
                        raise BoltUnavailable(
                            f"The storage of resource {resource_id} refused its signed URL.",
                            status_code=response.status_code,
                            may_have_acted=False,
                            retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
                            **facts,
                        )
                    yield _in_time(response.aiter_bytes(), end)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            failure, guidance = type(error).__name__, TRUST if is_of_trust(error) else None
        if failure:
            # The new error is raised outside of the `except`, so that the error with the signed URL does not become its
            # context: a context can be pickled.
            msg = f"Resource {resource_id} could not be fetched ({failure})."
            raise BoltUnavailable(msg, may_have_acted=False, guidance=guidance, **facts)


async def _follow(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Request a signed URL and follow redirects, but not from https to plain http. The content is not read yet.

    Raises:
        httpx.HTTPError: No response came, there were too many redirects, or a redirect led to an address that is not
            allowed.
    """
    request = client.build_request("GET", url)
    for _ in range(_REDIRECTS_AT_MOST + 1):
        with queries_unlogged():
            response = await client.send(request, stream=True)
        if response.next_request is None:
            return response
        await response.aclose()
        before, request = request, response.next_request
        if not _may_be_fetched(str(request.url)) or (before.url.scheme, request.url.scheme) == (
            "https",
            "http",
        ):
            msg = "The URL redirects to an address that does not begin with https://."
            raise httpx.UnsupportedProtocol(msg)
    msg = "The URL redirects too often."
    raise httpx.TooManyRedirects(msg, request=request)


async def _in_time(chunks: AsyncIterator[bytes], end: float) -> AsyncIterator[bytes]:
    """Yield each chunk of a download within a time limit for the whole download. httpx limits only each single read.

    Raises:
        TimeoutError: The download was not complete at the time limit.
    """
    while True:
        try:
            with anyio.fail_after(max(0.0, end - anyio.current_time())):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        yield chunk
