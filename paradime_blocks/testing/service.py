"""Handles a request to the simulator, which comes from a socket or from the same process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from .access import CREDENTIAL_HEADERS, Access
from .api import NO_PERMISSION, GraphQLApi, Prepared
from .clock import Clock
from .faultbox import FaultBox
from .faults import RESOURCE
from .planning import Refused
from .reply import Later, Reply
from .requests import RecordedRequest, RequestLog
from .resources import PREFIX, SignedPaths
from .state import Workspace


@dataclass(frozen=True)
class IncomingRequest:
    """An HTTP request.

    Attributes:
        method: `POST` for GraphQL, `GET` for the download of a resource.
        path: The path with its query.
        headers: The headers, with their names in lower case.
        body: The part of the body that arrived.
        complete: Whether the whole body arrived.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    complete: bool = True


@dataclass(frozen=True)
class Call:
    """A request that has been handled.

    Attributes:
        answer: The response: now, or later; None resets the connection.
        update: Changes the request's entry in the log.
    """

    answer: Reply | Later | None
    update: Callable[..., None]

    def note_answer(self, reply: Reply | None) -> None:
        """Record the response in the log before it is sent. So a client that has the response finds it in the log."""
        if reply is None:
            self.update(answered=True)
        else:
            self.update(status=reply.status, bytes=reply.size, answered=True)


@dataclass
class _Exchange:
    """What a fault can do with a call; see `paradime_blocks.testing.faults.Exchange`."""

    act: Callable[[], Reply]
    nothing: Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """Handles all requests to a simulated workspace."""

    api: GraphQLApi
    workspace: Workspace
    clock: Clock
    access: Access
    paths: SignedPaths
    faults: FaultBox
    log: RequestLog
    validation_status: int
    graphql_path: str

    def handle(self, request: IncomingRequest) -> Call:
        """Record a request, execute the request, and return the response."""
        update = self.log.add(
            RecordedRequest(
                at=self.clock.now(),
                monotonic=time.monotonic(),
                method=request.method,
                path=request.path,
                headers=request.headers,
                request_bytes=len(request.body),
            )
        )
        answer = (
            self._resource(request, update) if request.method == "GET" else self._graphql(request, update)
        )
        return Call(answer, update)

    def headers(self, reply: Reply) -> dict[str, str]:
        """Return the headers of a response."""
        length = reply.size if reply.announced_length is None else reply.announced_length
        # The header has the time of the runs' clock: clients compare the times of runs with this header.
        date = format_datetime(self.clock.now(), usegmt=True)
        return {"Date": date, **reply.headers, "Content-Length": str(length)}

    # The two kinds of requests

    def _graphql(self, request: IncomingRequest, update: Callable[..., None]) -> Reply | Later | None:
        if not request.complete:
            # The client disconnected in the middle of its request, as a cancelled client does: execute nothing.
            return None
        if urlsplit(request.path).path != self.graphql_path:
            return Reply.of_error(404, "There is no API endpoint at this address.")
        refusal = self.access.refuse(request.headers)
        if refusal is not None:
            return refusal
        prepared = self._prepare(request, update)
        if isinstance(prepared, Reply):
            return prepared
        update(operations=prepared.operations, authorized=True, not_understood=prepared.not_understood)

        def act() -> Reply:
            read_only = self.access.read_only
            # A gateway judges the request by its type; GraphQL judges each field that it executes.
            if read_only == "status" and prepared.is_mutation and not prepared.errors:
                return Reply.of_error(403, NO_PERMISSION)
            answer, broken = self.api.act(prepared, read_only=bool(read_only))
            if broken:
                update(not_understood=f"the simulator failed: {broken}")
            return Reply.of_json(answer, self.validation_status if prepared.errors else 200)

        return self._answer(prepared.operations, _Exchange(act, prepared.nothing), update)

    def _resource(self, request: IncomingRequest, update: Callable[..., None]) -> Reply | Later | None:
        if not request.path.startswith(PREFIX):
            return Reply.of_error(404, "There is nothing to see at this address.")
        update(operations=(RESOURCE,), authorized=True)
        leaked = [name for name in CREDENTIAL_HEADERS if name in request.headers]
        if leaked:
            message = f"Paradime credentials were sent to object storage: {', '.join(leaked)}."
            update(not_understood=message)
            return Reply.of_error(400, message)

        def nothing(*, ok: bool | None) -> dict[str, Any]:
            del ok
            return {}

        return self._answer((RESOURCE,), _Exchange(lambda: self._content(request.path), nothing), update)

    def _answer(
        self, operations: tuple[str, ...], exchange: _Exchange, update: Callable[..., None]
    ) -> Reply | Later | None:
        fault = self.faults.take(operations)
        update(fault=fault)
        return fault.answer(exchange) if fault else exchange.act()

    def _content(self, path: str) -> Reply:
        resource_id = self.paths.check(path)
        if resource_id is None:
            return Reply.of_error(403, "The link has expired, or its signature is wrong.")
        try:
            resource = self.workspace.resource(resource_id)
        except Refused as refusal:
            return Reply.of_error(404, str(refusal))
        content = resource.content.encode() if isinstance(resource.content, str) else resource.content
        kind = "application/json" if resource.path.endswith(".json") else "application/octet-stream"
        return Reply(200, content, {"Content-Type": kind})

    def _prepare(self, request: IncomingRequest, update: Callable[..., None]) -> Prepared | Reply:
        """Parse the JSON body of a GraphQL request and check the request. If the body is invalid, return a response."""
        problem = "The body must be JSON with a text `query` and, if any, an object `variables`."
        try:
            payload = json.loads(request.body)
        except ValueError:
            payload = None
        if _content_type(request.headers) != "application/json":
            problem = "The Content-Type must be application/json."
        elif isinstance(payload, dict) and isinstance(payload.get("query"), str):
            variables = payload.get("variables")
            variables = {} if variables is None else variables
            if isinstance(variables, dict):
                update(query=payload["query"], variables=variables)
                return self.api.prepare(payload["query"], variables, payload.get("operationName"))
        update(authorized=True, not_understood=problem)
        return Reply.of_error(400, problem)


def _content_type(headers: Mapping[str, str]) -> str:
    message = Message()
    message["Content-Type"] = headers.get("content-type", "")
    return message.get_content_type()
