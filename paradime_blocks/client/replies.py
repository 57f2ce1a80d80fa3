"""Reads a reply of Bolt: returns its values, or raises the error that says what the caller can do next."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import httpx

from paradime_blocks.client.retry import parse_retry_after
from paradime_blocks.client.schema_errors import missing_name
from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paradime_blocks.client.operations import Operation
    from paradime_blocks.text.redaction import Redactor

_GATEWAY_TIMEOUT: Final = 504
# An error's message becomes a state, a label and a log line in Prefect. So the text that the message quotes from Bolt
# is cut.
EXCERPT_CHARACTERS: Final = 200
ERROR_CHARACTERS: Final = 500
_NO_JSON: Final = object()
# Words of a GraphQL gateway that lost an answer, and the HTTP status that has the same meaning.
_OF_A_GATEWAY: Final = (
    (re.compile(r"(?<![\w-])(?:upstream|time(?:d)?[ -]?out)(?![\w-])", re.IGNORECASE), _GATEWAY_TIMEOUT),
    (re.compile(r"(?<![\w-])(?:gateway|connection reset)(?![\w-])", re.IGNORECASE), httpx.codes.BAD_GATEWAY),
    (
        re.compile(r"internal server error|service unavailable", re.IGNORECASE),
        httpx.codes.SERVICE_UNAVAILABLE,
    ),
)
_QUOTED: Final = re.compile(r"(?<!\w)([\"'`]).*?\1(?!\w)", re.DOTALL)
# A message with these words is about the request, even if a name in the message looks like a gateway's words.
_OF_THE_REQUEST: Final = re.compile(
    r"not found|no such|does(?: not|n't) exist|unknown (?!error)|invalid (?!response)|not allowed|permission|denied"
    r"|forbidden|unauthori[sz]ed|quota|required|must\b|suspended|disabled|\b(?:argument|parameter|variable|field)",
    re.IGNORECASE,
)
# It is unknown with which words Bolt refuses credentials in a reply with HTTP 200. These are the usual words of GraphQL
# servers.
BAD_CREDENTIALS: Final = re.compile(
    r"(invalid|incorrect|wrong|unknown|missing|expired|revoked|bad|no) "
    r"(api[ -_]?(key|secret|credentials?|token)|credentials?|key|secret|token|signature)"
    r"|(key|secret|token|credentials?) (is |are |has |have )?(been )?"
    r"(not valid|invalid|incorrect|unknown|expired|revoked)"
    r"|unauthenticated|not authenticated|not logged in|authentication|unauthori[sz]ed",
    re.IGNORECASE,
)
# The same holds for the words with which Bolt refuses an operation because of a missing capability. "Not allowed" alone
# may also be said of a value in the request.
NO_CAPABILITY: Final = re.compile(
    r"permission|capabilit|\bforbidden\b|access denied|not authori[sz]ed"
    r"|\b(you|user|key|token|role) (is |are )?not allowed|not allowed (for|with) (this|the|your) (api )?key",
    re.IGNORECASE,
)
_CAPABILITIES: Final = (
    "Triggering and cancelling need the capability 'Bolt Schedules Admin'; "
    "a 'Bolt Schedules Metadata Viewer' may only read."
)
# A query that fails with other words than these is sent again: Bolt may have failed internally, and a query does no
# harm.
_FINAL: Final = re.compile(
    rf"{_OF_THE_REQUEST.pattern}|{BAD_CREDENTIALS.pattern}|there is no|is unknown|syntax|unsupported|alias"
    r"|not (?:implemented|supported|recogni[sz]ed)|deleted|(?:cannot|can't|could not|couldn't) (?:be )?f(?:ind|ound)",
    re.IGNORECASE,
)
_FINAL_CODE: Final = re.compile(
    r"validation|syntax|parse|bad_?user_?input|bad_?request|unauthenticated|unauthori[sz]ed|forbidden|not_?found",
    re.IGNORECASE,
)


def unavailable(operation: Operation, what: str, **facts: Any) -> BoltUnavailable:
    """Return the error for a request that got no usable reply."""
    return BoltUnavailable(f"Bolt {what}.", operation=operation.name, **facts)


def read_reply(
    operation: Operation, field: str, response: httpx.Response, source: str, redact: Redactor
) -> Any:
    """Read a reply. Check the reply in this order: HTTP status, JSON, GraphQL format, errors, data.

    Args:
        operation: The operation that was sent.
        field: The name of the root field.
        response: The HTTP response.
        source: A name of the place where the credentials are stored. The error contains this name if Bolt refuses the
            credentials.
        redact: Removes secrets from the text that an error quotes from the reply.

    Returns:
        The value of the field, which is not None.

    Raises:
        BoltAuthError: HTTP 401 or 403.
        BoltRequestError: Another HTTP status from 400 to 499, a redirect, or a GraphQL error.
        BoltUnsupported: The backend does not know the operation, a field, or an argument.
        BoltUnavailable: HTTP 408, 429 or 5xx; no GraphQL reply; a reply without the field; a reply with errors and a
            part of the data; for a trigger, an error that a gateway seems to have written; for a query, any error that
            is neither about the request nor about the credentials.
    """
    data, errors = _graphql_of(operation, response, source, redact)
    value = data.get(field)
    # A run id proves that the trigger started a run, even if the reply has errors, too.
    is_proof = not operation.resend and _says_something(value)
    return _value_of(operation, value, [] if is_proof else errors, redact)


def read_aliases(
    operation: Operation, names: Sequence[str], response: httpx.Response, source: str, redact: Redactor
) -> list[Any]:
    """Read a reply that has a value under each of several aliases. The checks are those of `read_reply`.

    Returns:
        For each alias the value, which is not None, or the error that concerns only this alias.

    Raises:
        BoltUnsupported: The backend ignores aliases.
        BoltError: There is no value, and the errors do not say which alias they concern.
    """
    data, errors = _graphql_of(operation, response, source, redact)
    if operation.field in data and operation.field not in names:
        msg = "This workspace's Bolt backend ignores aliases."
        raise BoltUnsupported(msg, missing="aliases", operation=operation.name)
    aliases = [_alias_of(error, names) for error in errors]
    if errors and (not data or (None in aliases and all(data.get(name) is None for name in names))):
        raise graphql_error(operation, errors, redact)
    found: list[Any] = []
    for name in names:
        own = [error for error, alias in zip(errors, aliases, strict=True) if alias in {name, None}]
        try:
            found.append(_value_of(operation, data.get(name), own, redact))
        except BoltError as error:
            found.append(error)
    return found


def _graphql_of(
    operation: Operation, response: httpx.Response, source: str, redact: Redactor
) -> tuple[Mapping[str, Any], list[Any]]:
    """Return the data and the errors of a reply. If there is no data, the data is empty."""
    _check_status(operation, response, source, redact)
    body = _json_of(response)
    if body is _NO_JSON:
        excerpt = redact.line(response.text, EXCERPT_CHARACTERS)
        raise unavailable(operation, f"sent an answer that is not JSON: {excerpt!r}")
    if not isinstance(body, dict):
        raise unavailable(operation, "sent JSON that is not a GraphQL reply")
    data, errors = body.get("data"), body.get("errors")
    return data if isinstance(data, dict) else {}, errors if isinstance(errors, list) else []


def _value_of(operation: Operation, value: Any, errors: Sequence[Any], redact: Redactor) -> Any:
    """Return a value if it is not None and no errors concern it; otherwise raise the error."""
    if errors:
        refusal = graphql_error(operation, errors, redact)
        if value is None or operation.kind == "mutation":
            raise refusal
        # Otherwise a partial reply would look like "no commands" or "no schedules". The next reply may be complete.
        path = getattr(refusal, "path", None)
        raise unavailable(operation, f"sent a partial answer: {refusal.message}", path=path) from refusal
    if value is None:
        raise unavailable(operation, f"sent an answer without the field {operation.field}")
    return value


def _alias_of(error: Any, names: Sequence[str]) -> str | None:
    """Return the alias that an error concerns; None if the error may concern each of them."""
    path = error.get("path") if isinstance(error, dict) else None
    return path[0] if isinstance(path, list) and path and path[0] in names else None


def _says_something(value: Any) -> bool:
    """Whether a field's value contains anything but nulls."""
    return any(part is not None for part in value.values()) if isinstance(value, dict) else value is not None


def _check_status(operation: Operation, response: httpx.Response, source: str, redact: Redactor) -> None:
    status = response.status_code
    if response.is_success:
        return
    facts: dict[str, Any] = {"operation": operation.name, "status_code": status}
    if status == httpx.codes.UNAUTHORIZED:
        msg = f"Bolt does not accept the credentials of {source}."
        raise BoltAuthError(msg, source=source, **facts)
    if status == httpx.codes.FORBIDDEN:
        msg = f"The credentials of {source} do not allow this operation."
        guidance = (
            f"{_CAPABILITIES} Check also the workspace of the credentials."
            if operation.kind == "mutation"
            else "Check the workspace of the credentials. Or a gateway or firewall sent this answer, and not Bolt."
        )
        raise BoltAuthError(msg, source=source, guidance=guidance, **facts)
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT} or response.is_server_error:
        errors = _errors_of(response)
        if errors and isinstance(refusal := graphql_error(operation, errors, redact), BoltAlreadyRunning):
            # Only the text of this refusal is known, not its HTTP status. So the text counts with any status.
            raise refusal
        asked = parse_retry_after(response.headers.get("Retry-After"))
        wait = "" if asked is None else f" (Retry-After: {asked:.0f} s)"
        raise BoltUnavailable(
            f"Bolt returned HTTP {status}{wait}.",
            retry_after_seconds=asked,
            **_what_is_lost(status),
            **facts,
        )
    if response.has_redirect_location:
        # The query of the redirect's address may be a token.
        location = re.split(r"[?#]", response.headers["Location"], maxsplit=1)[0]
        target = redact.line(location, EXCERPT_CHARACTERS)
        msg = f"The endpoint redirects to {target!r}; credentials are not sent to another address."
        raise BoltRequestError(msg, guidance="Set api_endpoint to the workspace's own address.", **facts)
    errors = _errors_of(response)
    # HTTP 404 means that the address is wrong, even if the body has GraphQL errors.
    if errors and status != httpx.codes.NOT_FOUND:
        raise graphql_error(operation, errors, redact, status_code=status)
    msg = f"The endpoint answered: {redact.line(response.text, EXCERPT_CHARACTERS)!r}."
    raise BoltRequestError(
        msg, guidance="Check that api_endpoint is the workspace's GraphQL endpoint.", **facts
    )


def _what_is_lost(status: int) -> dict[str, Any]:
    """Return what an HTTP error status says: whether Bolt may have acted, may still act, and has answered."""
    return {
        "may_have_acted": status != httpx.codes.TOO_MANY_REQUESTS,
        "may_still_act": status == _GATEWAY_TIMEOUT,
        "was_answered": status != httpx.codes.BAD_GATEWAY,
    }


def _status_meant(text: str) -> int | None:
    """Return the HTTP status that means the same as a gateway's message; None if the text is no gateway's message."""
    told = _QUOTED.sub("", text)
    if _OF_THE_REQUEST.search(told):
        return None
    return next((status for words, status in _OF_A_GATEWAY if words.search(told)), None)


def _is_final(text: str, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a query whose error has this text will fail again, because the request or the credentials are wrong."""
    extensions = [entry["extensions"] for entry in entries if isinstance(entry.get("extensions"), dict)]
    codes = [str(each.get(name)) for each in extensions for name in ("code", "classification")]
    return bool(_FINAL.search(_QUOTED.sub("", text))) or any(map(_FINAL_CODE.search, codes))


def _json_of(response: httpx.Response) -> Any:
    """Return the body as JSON. If the body is not JSON, drop the decoder's error, which contains the whole body."""
    try:
        return response.json()
    except ValueError:
        return _NO_JSON


def _errors_of(response: httpx.Response) -> list[Any]:
    """Return the GraphQL errors of a response with any HTTP status: some servers send such errors with HTTP 400."""
    body = _json_of(response)
    errors = body.get("errors") if isinstance(body, dict) else None
    return errors if isinstance(errors, list) else []


def graphql_error(operation: Operation, errors: Sequence[Any], redact: Redactor, **facts: Any) -> BoltError:
    """Return the error for the `errors` of a reply.

    Args:
        operation: The operation that was sent.
        errors: The errors that Bolt sent.
        redact: Removes secrets. Bolt may quote the request, which contains the credentials.
        facts: Further facts of the error.
    """
    entries = [error if isinstance(error, dict) else {"message": str(error)} for error in errors]
    text = "; ".join(str(entry.get("message") or entry) for entry in entries)
    # The whole text decides which error class is used. The message quotes only a part of the text.
    quoted = redact.line(text, ERROR_CHARACTERS)
    facts = {
        "operation": operation.name,
        "path": redact.data(next((entry["path"] for entry in entries if entry.get("path")), None)),
        "graphql_errors": redact.data(entries, ERROR_CHARACTERS),
        **facts,
    }
    # The API has no error code for a schedule that is already running, only this text.
    if "AlreadyRunning" in text:
        msg = f"Bolt did not start a run because the schedule is already running: {quoted}"
        return BoltAlreadyRunning(msg, **facts)
    missing = missing_name(operation, entries)
    if missing is not None:
        missing = redact.line(missing)
        msg = f"This workspace's Bolt backend does not know {missing!r}: {quoted}"
        return BoltUnsupported(msg, missing=missing, **facts)
    if operation.kind == "query" and "status_code" not in facts and not _is_final(text, entries):
        return BoltUnavailable(f"Bolt could not answer {operation.field}: {quoted}", **facts)
    lost_as = None if operation.resend else _status_meant(text)
    if lost_as is not None:
        msg = f"Bolt could not answer {operation.field}: {quoted}"
        return BoltUnavailable(msg, **_what_is_lost(lost_as), **facts)
    guidance = "Correct the value that Bolt names, then try again."
    said = _QUOTED.sub("", text)
    if operation.kind == "mutation" and (BAD_CREDENTIALS.search(said) or NO_CAPABILITY.search(said)):
        guidance = f"Check the API key and its capabilities. {_CAPABILITIES}"
    return BoltRequestError(f"Bolt refused {operation.field}: {quoted}", guidance=guidance, **facts)
