"""The one place that reads a reply of Bolt's: what it says, or the error that tells the caller what to do next."""

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
# A message is a state in Prefect's lists, a label and a line of its logs: what Bolt says in it is bounded.
EXCERPT_CHARACTERS: Final = 200
ERROR_CHARACTERS: Final = 500
_NO_JSON: Final = object()
# A gateway that speaks GraphQL has no status of its own to say it with: what it says, and as which status.
_OF_A_GATEWAY: Final = (
    (re.compile(r"(?<![\w-])(?:upstream|time(?:d)?[ -]?out)(?![\w-])", re.IGNORECASE), _GATEWAY_TIMEOUT),
    (re.compile(r"(?<![\w-])(?:gateway|connection reset)(?![\w-])", re.IGNORECASE), httpx.codes.BAD_GATEWAY),
    (
        re.compile(r"internal server error|service unavailable", re.IGNORECASE),
        httpx.codes.SERVICE_UNAVAILABLE,
    ),
)
_QUOTED: Final = re.compile(r"(?<!\w)([\"'`]).*?\1(?!\w)", re.DOTALL)
# Whoever says so has understood the request, whatever words of a gateway there are in its names.
_OF_THE_REQUEST: Final = re.compile(
    r"not found|no such|does(?: not|n't) exist|unknown (?!error)|invalid (?!response)|not allowed|permission|denied"
    r"|forbidden|unauthori[sz]ed|quota|required|must\b|suspended|disabled|\b(?:argument|parameter|variable|field)",
    re.IGNORECASE,
)
# Bolt's own words for a refusal with HTTP 200 are not known: these are the customary ones.
BAD_CREDENTIALS: Final = re.compile(
    r"(invalid|incorrect|wrong|unknown|missing|expired|revoked|bad|no) "
    r"(api[ -_]?(key|secret|credentials?|token)|credentials?|key|secret|token|signature)"
    r"|(key|secret|token|credentials?) (is |are |has |have )?(been )?"
    r"(not valid|invalid|incorrect|unknown|expired|revoked)"
    r"|unauthenticated|not authenticated|not logged in|authentication|unauthori[sz]ed",
    re.IGNORECASE,
)
# A read that ends in any other words is asked again: it may have failed inside Bolt, and it does no harm.
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
    """Return the error of a request that got no usable reply."""
    return BoltUnavailable(f"Bolt {what}.", operation=operation.name, **facts)


def read_reply(
    operation: Operation, fields: Sequence[str], response: httpx.Response, source: str, redact: Redactor
) -> list[Any]:
    """Read a reply, in order: status, JSON, shape, errors, data.

    Args:
        operation: What was asked.
        fields: Names of the fields, or their aliases.
        response: What came back.
        source: Where the credentials are kept, for the message when they are refused.
        redact: Takes secrets out of what is quoted of the reply.

    Returns:
        The value of each field; never None.

    Raises:
        BoltAuthError: HTTP 401 or 403.
        BoltRequestError: Another 4xx, a redirect, a GraphQL error, or aliases that are not understood.
        BoltUnavailable: HTTP 408, 429 or 5xx, or a reply that is no GraphQL reply, or lacks the field or, with
            errors beside it, a part of it; an error that tells of a gateway, where a run was to be started; or, to a
            read, any error that is about neither the request nor the credentials.
    """
    _check_status(operation, response, source, redact)
    body = _json_of(response)
    if body is _NO_JSON:
        excerpt = redact.line(response.text, EXCERPT_CHARACTERS)
        raise unavailable(operation, f"answered something that is not JSON: {excerpt!r}")
    if not isinstance(body, dict):
        raise unavailable(operation, "answered JSON that is no GraphQL reply")
    data = body.get("data")
    values = [data.get(name) if isinstance(data, dict) else None for name in fields]
    errors = body.get("errors") if isinstance(body.get("errors"), list) else []
    # What did come of a trigger is the proof of a run, although something else failed.
    is_proof = not operation.resend and any(_says_something(value) for value in values)
    if None not in values and (is_proof or not errors):
        return values
    if errors:
        refusal = graphql_error(operation, errors, redact)
        if None in values or operation.kind == "mutation":
            raise refusal
        # Half an answer must not be read as "no commands" or "no schedules", and the other half may come yet.
        path = getattr(refusal, "path", None)
        raise unavailable(operation, f"answered in part only: {refusal.message}", path=path) from refusal
    if isinstance(data, dict) and operation.field in data and operation.field not in fields:
        msg = "This workspace's Bolt backend answers aliased fields under their own name."
        raise BoltUnsupported(msg, missing="aliases", operation=operation.name)
    raise unavailable(operation, f"answered without the field {operation.field}")


def _says_something(value: Any) -> bool:
    """Whether a field's value holds more than nulls."""
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
        msg = f"The credentials of {source} are not allowed to do this."
        guidance = (
            "Triggering and cancelling need the capability 'Bolt Schedules Admin'; "
            "a 'Bolt Schedules Metadata Viewer' may only read. Check the workspace, too."
            if operation.kind == "mutation"
            else "Check the workspace that they are for; a gateway or firewall on the way can answer so, too."
        )
        raise BoltAuthError(msg, source=source, guidance=guidance, **facts)
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT} or response.is_server_error:
        errors = _errors_of(response)
        if errors and isinstance(refusal := graphql_error(operation, errors, redact), BoltAlreadyRunning):
            # `facts.md` tells the text and no status: whatever it comes with, it is an answer, and not lost.
            raise refusal
        asked = parse_retry_after(response.headers.get("Retry-After"))
        told = "" if asked is None else f" and asks to be left alone for {asked:.0f} s"
        raise BoltUnavailable(
            f"Bolt cannot answer now{told}.",
            retry_after_seconds=asked,
            **_what_is_lost(status),
            **facts,
        )
    if response.has_redirect_location:
        # Its query may be a token.
        location = re.split(r"[?#]", response.headers["Location"], maxsplit=1)[0]
        target = redact.line(location, EXCERPT_CHARACTERS)
        msg = f"The endpoint redirects to {target!r}, and credentials are not sent on to another address."
        raise BoltRequestError(msg, guidance="Set api_endpoint to the workspace's own address.", **facts)
    errors = _errors_of(response)
    # Nothing at the address is a wrong address, in whatever form it is said.
    if errors and status != httpx.codes.NOT_FOUND:
        raise graphql_error(operation, errors, redact, status_code=status)
    msg = f"The endpoint answered: {redact.line(response.text, EXCERPT_CHARACTERS)!r}."
    raise BoltRequestError(
        msg, guidance="Check that api_endpoint is the workspace's GraphQL endpoint.", **facts
    )


def _what_is_lost(status: int) -> dict[str, Any]:
    """Return what a status, in place of an answer, leaves open."""
    return {
        "may_have_acted": status != httpx.codes.TOO_MANY_REQUESTS,
        "may_still_act": status == _GATEWAY_TIMEOUT,
        "was_answered": status != httpx.codes.BAD_GATEWAY,
    }


def _status_meant(text: str) -> int | None:
    """Return the status as which a gateway would have lost an answer; None if the text is Bolt's own refusal."""
    told = _QUOTED.sub("", text)
    if _OF_THE_REQUEST.search(told):
        return None
    return next((status for words, status in _OF_A_GATEWAY if words.search(told)), None)


def _is_final(text: str, entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a read that was refused in these words will be refused again: request or credentials are wrong."""
    extensions = [entry["extensions"] for entry in entries if isinstance(entry.get("extensions"), dict)]
    codes = [str(each.get(name)) for each in extensions for name in ("code", "classification")]
    return bool(_FINAL.search(_QUOTED.sub("", text))) or any(map(_FINAL_CODE.search, codes))


def _json_of(response: httpx.Response) -> Any:
    """Read a body as JSON; the error of one that is none would hold all of it, and goes no further."""
    try:
        return response.json()
    except ValueError:
        return _NO_JSON


def _errors_of(response: httpx.Response) -> list[Any]:
    """Some servers answer a document that they cannot validate with HTTP 400, and the errors in the body."""
    body = _json_of(response)
    errors = body.get("errors") if isinstance(body, dict) else None
    return errors if isinstance(errors, list) else []


def graphql_error(operation: Operation, errors: Sequence[Any], redact: Redactor, **facts: Any) -> BoltError:
    """Turn the `errors` of a reply into the error that tells the caller what to do next.

    Args:
        operation: What was asked.
        errors: What Bolt said, as it came.
        redact: Takes secrets out of it: Bolt may quote the request, and with it the credentials.
        facts: Further facts of the error.
    """
    entries = [error if isinstance(error, dict) else {"message": str(error)} for error in errors]
    text = "; ".join(str(entry.get("message") or entry) for entry in entries)
    # What it means is read off the whole; what is told of it is cut.
    told = redact.line(text, ERROR_CHARACTERS)
    facts = {
        "operation": operation.name,
        "path": redact.data(next((entry["path"] for entry in entries if entry.get("path")), None)),
        "graphql_errors": redact.data(entries, ERROR_CHARACTERS),
        **facts,
    }
    # The text that `facts.md` names; the API has no code for it.
    if "AlreadyRunning" in text:
        msg = f"Bolt did not start a run because the schedule is running already: {told}"
        return BoltAlreadyRunning(msg, **facts)
    missing = missing_name(operation, entries)
    if missing is not None:
        missing = redact.line(missing)
        msg = f"This workspace's Bolt backend does not know {missing!r}: {told}"
        return BoltUnsupported(msg, missing=missing, **facts)
    if operation.kind == "query" and "status_code" not in facts and not _is_final(text, entries):
        return BoltUnavailable(f"Bolt could not answer {operation.field}: {told}", **facts)
    lost_as = None if operation.resend else _status_meant(text)
    if lost_as is not None:
        msg = f"Bolt could not answer {operation.field}: {told}"
        return BoltUnavailable(msg, **_what_is_lost(lost_as), **facts)
    return BoltRequestError(f"Bolt refused {operation.field}: {told}", **facts)
