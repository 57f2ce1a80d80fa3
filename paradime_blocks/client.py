"""The typed Bolt client: one method per GraphQL operation."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import httpx
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from paradime_blocks import operations as ops
from paradime_blocks.connection import Connection, ConnectionSettings, shared_connection
from paradime_blocks.endpoints import check_credentials, check_endpoint, check_proxy, is_loopback
from paradime_blocks.errors import BoltAuthError, BoltRequestError, BoltUnavailable, BoltUnsupported
from paradime_blocks.inputs import LARGEST_PAGE, check_count, check_id, check_text, trigger_variables
from paradime_blocks.models import (
    BoltCommandDetail,
    BoltLogPage,
    BoltResource,
    BoltRunPage,
    BoltRunStatus,
    BoltScheduleDetail,
    BoltSchedulePage,
    BoltScheduleSummary,
)
from paradime_blocks.retrying import (
    RetryPolicy,
    call_with_retries,
    never_arrived,
    parse_retry_after,
    should_retry,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from typing_extensions import Self

    from paradime_blocks.operations import Operation
    from paradime_blocks.retrying import Sleep

Model = TypeVar("Model", bound=BaseModel)
_INT = TypeAdapter(int)
_FIRST_CURSOR = "0:0"
_ALIASES = "aliases"
_ALIASES_PER_REQUEST = 50


def _validated(operation: Operation, model: type[Model], reply: Any, **known: Any) -> Model:
    try:
        return model.model_validate({**reply, **known})
    except (ValidationError, TypeError) as error:
        msg = f"Bolt answered {operation.field} in a shape that is not the API's."
        raise BoltUnavailable(msg, operation=operation.name) from error


class _Url(BaseModel):
    url: str


class _Resources(BaseModel):
    resources: list[BoltResource] | None = None


class BoltClient:
    """A typed client of one Bolt workspace.

    Use it as an async context manager: clients with the same settings in the same event loop share one
    connection pool while any of them is open. Reads, and the mutations that are safe to repeat, are retried by
    the policy; a trigger is sent again only when Bolt cannot have seen it.

    Args:
        api_endpoint: The workspace's GraphQL endpoint.
        api_key: The API key; not needed with a bearer token.
        api_secret: The API secret, or a token that begins with `prdm_wsp_` or `prdm_cmp_`.
        workspace_uid: The workspace that a company token acts on.
        proxy: A proxy's URL; `none` for no proxy; None for what the environment says.
        request_timeout_seconds: How long one request may take as a whole.
        source: Where the credentials are kept, for messages.
        retry_policy: How often and how long a request is tried.
        transport: Takes the place of the network; for tests.
        sleep: How to wait between tries; for tests.

    Raises:
        BoltRequestError: An argument is no good; the message says what to type.

    Example:
        ```python
        import asyncio
        from paradime_blocks import BoltClient
        from paradime_blocks.testing import BoltSimulator

        async def main(simulator):
            async with BoltClient(
                simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
            ) as client:
                run_id = await client.trigger_bolt_run("daily", commands=["dbt compile"])
                print((await client.get_bolt_run(run_id)).state)

        with BoltSimulator() as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            asyncio.run(main(simulator))
        ```
    """

    def __init__(  # noqa: PLR0913 - settings, all but two by keyword and with a default
        self,
        api_endpoint: str,
        *,
        api_key: str | SecretStr | None = None,
        api_secret: str | SecretStr,
        workspace_uid: str | None = None,
        proxy: str | None = None,
        request_timeout_seconds: float = 30.0,
        source: str = "the arguments of BoltClient",
        retry_policy: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        secret = api_secret.get_secret_value() if isinstance(api_secret, SecretStr) else api_secret
        try:
            check_credentials(key, secret, workspace_uid)
            endpoint = check_endpoint(api_endpoint)
            proxy = check_proxy(proxy) if proxy else None
        except ValueError as error:
            raise BoltRequestError(str(error), guidance="") from None
        if not 0 < request_timeout_seconds < float("inf"):
            msg = f"request_timeout_seconds is {request_timeout_seconds!r}."
            raise BoltRequestError(msg, guidance="Give it as a number of seconds above 0, such as 30.")
        self.settings = ConnectionSettings(
            api_endpoint=endpoint,
            api_key=SecretStr(key) if key else None,
            api_secret=SecretStr(secret),
            workspace_uid=workspace_uid or None,
            proxy=proxy,
            request_timeout_seconds=request_timeout_seconds,
            source=source,
        )
        self.retry_policy = retry_policy or RetryPolicy()
        self._transport = transport
        self._sleep = sleep
        self._connection: Connection | None = None
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"BoltClient({self.settings.api_endpoint!r})"

    async def __aenter__(self) -> Self:
        """Open the connection, or join the one that is open."""
        if self._transport is None:
            self._connection = await self._stack.enter_async_context(shared_connection(self.settings))
        else:
            self._connection = Connection.open(self.settings, self._transport)
            self._stack.push_async_callback(self._connection.http.aclose)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave the connection; the last to leave closes it."""
        self._connection = None
        await self._stack.aclose()

    def clone(self) -> BoltClient:
        """Return a closed client with the same settings, for another event loop or thread."""
        return BoltClient(
            self.settings.api_endpoint,
            api_key=self.settings.api_key,
            api_secret=self.settings.api_secret,
            workspace_uid=self.settings.workspace_uid,
            proxy=self.settings.proxy,
            request_timeout_seconds=self.settings.request_timeout_seconds,
            source=self.settings.source,
            retry_policy=self.retry_policy,
            transport=self._transport,
            sleep=self._sleep,
        )

    async def trigger_bolt_run(  # noqa: PLR0913 - the operation's own arguments
        self,
        schedule_name: str | None = None,
        *,
        slug: str | None = None,
        commands: Sequence[str] | None = None,
        command_configs: Sequence[dict[str, Any]] | None = None,
        branch: str | None = None,
        pr_number: int | None = None,
        reason: str | None = None,
        continue_on_error: bool | None = None,
    ) -> int:
        """Trigger a run of a schedule; sent again only when Bolt cannot have seen it (`reference.txt`).

        Args:
            schedule_name: The schedule's name.
            slug: The newer identifier of a schedule, in place of its name (`facts.md`).
            commands: Commands that take the place of the schedule's own, for this run only.
            command_configs: The same as `{"command": ..., "continueOnError": ...}`, in place of `commands`.
            branch: A branch or commit that takes the place of the schedule's own, for this run only.
            pr_number: The pull request that the run belongs to.
            reason: Who or what triggered the run, for Paradime's page.
            continue_on_error: Whether the run goes on after a command that failed.

        Returns:
            The id of the run.

        Raises:
            BoltAlreadyRunning: The schedule runs already.
            BoltUnavailable: The answer was lost; `may_have_acted` says whether a run may have started.
            BoltRequestError: Bad input, or Bolt refused it.
            BoltAuthError: Bolt refused the credentials.
        """
        variables = trigger_variables(
            schedule_name,
            slug=slug,
            commands=commands,
            command_configs=command_configs,
            branch=branch,
            pr_number=pr_number,
            reason=reason,
            continue_on_error=continue_on_error,
        )
        return await self._new_run(ops.TRIGGER_BOLT_RUN, variables)

    async def retry_bolt_run(self, run_id: int, *, everything: bool = False) -> int:
        """Retry a run in a new run; sent again only when Bolt cannot have seen it (`facts.md`).

        Args:
            run_id: The run to retry.
            everything: Run all its commands again rather than only what failed.

        Returns:
            The id of the new run.

        Raises:
            BoltUnsupported: The backend lacks the operation.
            BoltError: As `trigger_bolt_run`.
        """
        operation = ops.RETRY_ALL_BOLT_RUN if everything else ops.RETRY_BOLT_RUN
        return await self._new_run(operation, {"scheduleRunId": check_id("run_id", run_id)})

    async def cancel_bolt_run(self, run_id: int) -> bool:
        """Ask Bolt to cancel a run (`reference.txt`); safe to repeat.

        Args:
            run_id: The run.

        Returns:
            Whether Bolt took the request. That the run has ended is another matter: look at its state.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        reply = await self._call(ops.CANCEL_BOLT_RUN, {"scheduleRunId": check_id("run_id", run_id)})
        return bool(isinstance(reply, dict) and reply.get("ok"))

    async def get_bolt_run(self, run_id: int, *, logs: bool = True) -> BoltRunStatus:
        """Return the state and the commands of a run (`reference.txt`: `boltRunStatus`).

        Args:
            run_id: The run.
            logs: Whether to fetch the commands' output, too.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        operation = ops.BOLT_RUN_STATUS if logs else ops.BOLT_RUN_STATE
        return await self._read(operation, {"runId": check_id("run_id", run_id)}, BoltRunStatus)

    async def get_bolt_command(self, command_id: int) -> BoltCommandDetail:
        """Return one command with its output and resources (`reference.txt`: `boltCommand`).

        Args:
            command_id: The command.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {"commandId": check_id("command_id", command_id)}
        return await self._read(ops.BOLT_COMMAND, variables, BoltCommandDetail, id=command_id)

    async def get_bolt_command_resources(self, command_ids: Sequence[int]) -> dict[int, list[BoltResource]]:
        """Return the resources of several commands, asked for in as few requests as the backend allows.

        Args:
            command_ids: The commands.

        Returns:
            The resources by command.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        each = [{"commandId": check_id("command_id", command_id)} for command_id in command_ids]
        replies = await self._read_many(ops.BOLT_COMMAND_RESOURCES, each, _Resources)
        return {id_: reply.resources or [] for id_, reply in zip(command_ids, replies, strict=True)}

    async def get_bolt_resource_urls(self, resource_ids: Sequence[int]) -> dict[int, str]:
        """Return the signed, expiring URLs of several resources, in as few requests as the backend allows.

        Args:
            resource_ids: The resources.

        Returns:
            The URLs by resource.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        each = [{"resourceId": check_id("resource_id", resource_id)} for resource_id in resource_ids]
        replies = await self._read_many(ops.BOLT_RESOURCE_URL, each, _Url)
        return {id_: reply.url for id_, reply in zip(resource_ids, replies, strict=True)}

    async def get_bolt_resource_url(self, resource_id: int) -> str:
        """Return the signed, expiring URL of a resource (`reference.txt`: `boltResourceUrl`).

        Args:
            resource_id: The resource, from a command's `resources`.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        reply = await self._read(
            ops.BOLT_RESOURCE_URL, {"resourceId": check_id("resource_id", resource_id)}, _Url
        )
        return reply.url

    async def list_bolt_schedules(
        self, *, offset: int = 0, limit: int = 100, show_inactive: bool = False
    ) -> BoltSchedulePage:
        """Return one page of the workspace's schedules (`reference.txt`).

        Args:
            offset: How many schedules to pass over.
            limit: How many to return at most, 1 to 1000.
            show_inactive: Whether to list inactive schedules, too.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {
            "offset": check_count("offset", offset, least=0),
            "limit": check_count("limit", limit, least=1, most=LARGEST_PAGE),
            "showInactive": bool(show_inactive),
        }
        return await self._read(ops.LIST_BOLT_SCHEDULES, variables, BoltSchedulePage)

    async def iter_bolt_schedules(
        self, *, page_size: int = 100, show_inactive: bool = False
    ) -> AsyncIterator[BoltScheduleSummary]:
        """Iterate over all schedules of the workspace, page by page.

        Args:
            page_size: How many schedules to ask for at a time, 1 to 1000.
            show_inactive: Whether to list inactive schedules, too.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        offset = 0
        while True:
            page = await self.list_bolt_schedules(offset=offset, limit=page_size, show_inactive=show_inactive)
            for schedule in page.schedules:
                yield schedule
            offset += len(page.schedules)
            if not page.schedules or (page.total_count is not None and offset >= page.total_count):
                return

    async def get_bolt_schedule(
        self, schedule_name: str | None = None, *, slug: str | None = None
    ) -> BoltScheduleDetail:
        """Return one schedule with the id of its latest run (`reference.txt`: `boltScheduleName`).

        Args:
            schedule_name: The schedule's name.
            slug: Its slug, in place of its name (`facts.md`).

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = trigger_variables(schedule_name, slug=slug)
        return await self._read(ops.BOLT_SCHEDULE_NAME, variables, BoltScheduleDetail)

    async def list_bolt_runs(self, slug: str, *, offset: int = 0, limit: int = 20) -> BoltRunPage:
        """Return one page of a schedule's runs, newest first (`facts.md`).

        Args:
            slug: The schedule's slug or name.
            offset: How many runs to pass over.
            limit: How many to return at most, 1 to 1000.

        Raises:
            BoltUnsupported: The backend lacks the operation.
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {
            "slug": check_text("slug", slug, "daily"),
            "offset": check_count("offset", offset, least=0),
            "limit": check_count("limit", limit, least=1, most=LARGEST_PAGE),
        }
        return await self._read(ops.LIST_BOLT_RUNS, variables, BoltRunPage)

    async def get_bolt_command_logs(self, command_id: int, cursor: str | None = None) -> BoltLogPage:
        """Return a command's log since a cursor (`facts.md`: `boltCommandLogs`).

        Args:
            command_id: The command.
            cursor: The cursor of the page before; None for the beginning.

        Raises:
            BoltUnsupported: The backend lacks the operation.
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {"commandId": check_id("command_id", command_id), "cursor": cursor or _FIRST_CURSOR}
        return await self._read(ops.BOLT_COMMAND_LOGS, variables, BoltLogPage)

    async def download_bolt_resource(self, resource_id: int) -> bytes:
        """Fetch a resource's content from its signed URL, which is sent no credential.

        Args:
            resource_id: The resource.

        Raises:
            BoltError: Bolt refused it, or the content could not be fetched.
        """

        async def fetch() -> bytes:
            # A new URL for each try: the one before may have expired.
            async with self.stream_bolt_resource(resource_id) as chunks:
                return b"".join([chunk async for chunk in chunks])

        return await call_with_retries(fetch, self.retry_policy, sleep=self._sleep)

    @asynccontextmanager
    async def stream_bolt_resource(self, resource_id: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a resource's content from its signed URL, which is sent no credential.

        Args:
            resource_id: The resource.

        Raises:
            BoltError: Bolt refused it, or the content could not be fetched.
        """
        url = await self.get_bolt_resource_url(resource_id)
        facts: dict[str, Any] = {"operation": "resource", "resource_id": resource_id}
        if not (url.startswith("https://") or is_loopback(url)):
            msg = f"Bolt gave no https:// address for resource {resource_id}."
            raise BoltRequestError(msg, **facts)
        options = {"transport": self._transport} if self._transport else self.settings.http_options()
        try:
            async with (
                httpx.AsyncClient(
                    timeout=self.settings.request_timeout_seconds, follow_redirects=True, **options
                ) as plain,
                plain.stream("GET", url) as response,
            ):
                if not response.is_success:
                    # The URL itself is left out: its signature opens the file to whoever reads the message.
                    raise BoltUnavailable(
                        f"The store of resource {resource_id} refused its signed URL.",
                        status_code=response.status_code,
                        may_have_acted=False,
                        retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
                        **facts,
                    )
                yield response.aiter_bytes()
        except httpx.HTTPError as error:
            msg = f"Resource {resource_id} could not be fetched ({type(error).__name__})."
            raise BoltUnavailable(msg, may_have_acted=False, **facts) from None

    async def may_trigger(self) -> bool:
        """Whether the key may trigger and cancel, as far as Bolt tells without anything being executed.

        It sends a cancel whose only field is skipped: a server that judges a request by its kind refuses it to a
        key that may only read; any other has nothing to execute.

        Raises:
            BoltUnavailable: No usable answer came.
        """
        operation = ops.CANCEL_BOLT_RUN
        document = "mutation MayTrigger { cancelBoltRun(scheduleRunId: 1) @skip(if: true) { ok } }"
        try:
            await self._open_connection().send_document(operation, document, {})
        except BoltAuthError:
            return False
        except BoltRequestError as error:
            return not any(word in str(error).lower() for word in ("permission", "not allowed", "forbidden"))
        except BoltUnavailable as error:
            # "No such field in the reply" is the good answer: the field was skipped.
            if error.status_code is not None or error.may_still_act or not error.may_have_acted:
                raise
        return True

    async def _new_run(self, operation: Operation, variables: dict[str, Any]) -> int:
        async def call() -> int:
            reply = await self._open_connection().send(operation, variables)
            try:
                return _INT.validate_python(reply["runId"])
            except (ValidationError, KeyError, TypeError) as error:
                msg = "Bolt answered without the id of a run."
                raise BoltUnavailable(msg, operation=operation.name) from error

        return await call_with_retries(call, self.retry_policy, retry=never_arrived, sleep=self._sleep)

    async def _read(
        self, operation: Operation, variables: dict[str, Any], model: type[Model], **known: Any
    ) -> Model:
        async def call() -> Model:
            reply = await self._send(operation, variables)
            if isinstance(reply, dict) and reply.get("ok") is False:
                # `ok` is all that the reference shows of a refusal; what there is not cannot be read again.
                asked = ", ".join(f"{name} {value!r}" for name, value in variables.items())
                msg = f"Bolt has no answer to {operation.field} for {asked} (ok: false)."
                raise BoltRequestError(msg, operation=operation.name, guidance="Check that it exists.")
            return _validated(operation, model, reply, **known)

        return await call_with_retries(call, self.retry_policy, sleep=self._sleep)

    async def _read_many(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model]:
        """Read the same of several things through aliases; a backend that refuses aliases is asked one by one."""
        found: list[Model] = []
        for start in range(0, len(each), _ALIASES_PER_REQUEST):
            chunk = each[start : start + _ALIASES_PER_REQUEST]
            found.extend(await self._read_chunk(operation, chunk, model))
        return found

    async def _read_chunk(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model]:
        connection = self._open_connection()
        if len(each) > 1 and _ALIASES not in connection.refused:
            document, variables = operation.aliased(each)
            try:
                replies = await call_with_retries(
                    lambda: connection.send_aliased(operation, document, variables, len(each)),
                    self.retry_policy,
                    sleep=self._sleep,
                )
                return [_validated(operation, model, reply) for reply in replies]
            except BoltAuthError:
                raise
            except BoltRequestError:
                # One thing that is not there fails them all, too; only the single queries tell which case it is.
                singles = [await self._read(operation, variables, model) for variables in each]
                connection.refused.add(_ALIASES)
                return singles
        return [await self._read(operation, variables, model) for variables in each]

    async def _call(self, operation: Operation, variables: dict[str, Any]) -> Any:
        return await call_with_retries(
            lambda: self._send(operation, variables), self.retry_policy, retry=should_retry, sleep=self._sleep
        )

    async def _send(self, operation: Operation, variables: dict[str, Any]) -> Any:
        """Send once, with the newer fields unless this backend is known to refuse them."""
        connection = self._open_connection()
        if not operation.newer or operation.name in connection.refused:
            return await connection.send(operation, variables)
        try:
            return await connection.send(operation, variables, with_newer=True)
        except BoltUnsupported as error:
            if error.missing not in operation.newer.split():
                raise
            connection.refused.add(operation.name)
            return await connection.send(operation, variables)

    def _open_connection(self) -> Connection:
        if self._connection is None:
            msg = "The client is not open."
            raise BoltRequestError(
                msg, guidance="Use it as `async with credentials.get_client() as client:`."
            )
        return self._connection
