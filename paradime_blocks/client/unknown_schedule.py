"""Makes an error helpful if Bolt does not know a schedule: the error names schedules with a similar name."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import anyio

from paradime_blocks.client import operations as ops
from paradime_blocks.client.inputs import LARGEST_PAGE
from paradime_blocks.errors import BoltRequestError
from paradime_blocks.models import BoltSchedulePage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from paradime_blocks.client.operations import Operation
    from paradime_blocks.text.redaction import Redactor

_CHECK: Final = "The flow list_schedules shows all schedules of the workspace."
_SECONDS: Final = 10.0
_SIMILAR: Final = 0.6
_NAMES_SHOWN: Final = 3
_NAME_CHARACTERS: Final = 100
# The apostrophe in "couldn't" begins no quotation.
_QUOTED: Final = re.compile(r"(?<!\w)([\"'`]).*?\1", re.DOTALL)
# The API has no error code for an unknown schedule. A message about the schedule's branch or run is another refusal.
_UNKNOWN: Final = re.compile(
    r"\bschedules?(?: with)?(?: (?:the )?(?:name|slug))?[^a-z]*"
    r"(?:(?:was |is |could )?not (?:be )?found|does(?:n't| not) exist|is unknown)"
    r"|(?:no such|unknown|(?:cannot|can't|could not|couldn't|did not|unable to) find(?: the| a| any)?)"
    r" (?:bolt )?schedule\b",
    re.IGNORECASE,
)


async def explained(
    error: BoltRequestError,
    variables: Mapping[str, Any],
    send: Callable[[Operation, dict[str, Any]], Awaitable[Any]],
    redact: Redactor,
) -> BoltRequestError:
    """Return the error that says which schedules have a similar name, or else the error that was passed.

    Args:
        error: The error of a request.
        variables: The variables of the request.
        send: Sends one request, which lists the schedules. If this fails, the returned error names no schedules.
        redact: Removes secrets from the names.
    """
    name = variables.get("scheduleName") or variables.get("slug")
    # Some operations say only `ok: false`.
    says_only_no = not error.graphql_errors and "ok: false" in error.message
    if type(error) is not BoltRequestError or not name:
        return error
    said = _QUOTED.sub("", error.message)
    # Bolt may name the schedule without quotation marks.
    if not (says_only_no or _UNKNOWN.search(said) or _UNKNOWN.search(said.replace(str(name), ""))):
        return error
    names = await _names(send)
    if (names and name in names) or (says_only_no and not names):
        return error
    similar = [redact.line(each, _NAME_CHARACTERS) for each in _similar(name, names or {})]
    return BoltRequestError(
        error.message,
        guidance=f"{_did_you_mean(similar)}{_CHECK}",
        **{fact: getattr(error, fact) for fact in ("operation", "path", "graphql_errors", "status_code")},
    )


async def _names(send: Callable[[Operation, dict[str, Any]], Awaitable[Any]]) -> dict[str, str] | None:
    """Return the names of the schedules; None if they are unknown. The keys are the names and the slugs."""
    with anyio.move_on_after(_SECONDS):
        try:
            reply = await send(
                ops.LIST_BOLT_SCHEDULES, {"offset": 0, "limit": LARGEST_PAGE, "showInactive": False}
            )
            found = BoltSchedulePage.model_validate(reply).schedules
        except Exception:  # noqa: BLE001 - an error here must not hide the first error
            return None
        return {key: each.name for each in found for key in (each.slug, each.name) if key}
    return None


def _similar(name: str, names: Mapping[str, str]) -> list[str]:
    """Return the names that are similar. Only the beginning of a long name is compared, to save time."""
    by_key = {key.lower()[:_NAME_CHARACTERS]: each for key, each in names.items()}
    close = get_close_matches(name.lower()[:_NAME_CHARACTERS], by_key, _NAMES_SHOWN, _SIMILAR)
    return list(dict.fromkeys(by_key[match] for match in close))


def _did_you_mean(names: Sequence[str]) -> str:
    quoted = list(map(repr, names))
    if not quoted:
        return "Check the name. "
    *before, last = quoted
    return f"Did you mean {', '.join(before)}{' or ' if before else ''}{last}? "
