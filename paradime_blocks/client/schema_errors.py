"""Reads an error message of a GraphQL server, and finds the name that the server's schema does not contain.

The API has no error code for this case. But the case is important: the server has executed nothing, so even a trigger
may be sent again. For a trigger, only the whole sentences of known GraphQL servers count, with the name at the right
place in the sentence. Other words with a similar meaning ("for an unknown reason") do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paradime_blocks.client.operations import Operation

# A server that reports a validation error has executed nothing.
_VALIDATION = r"(?i:(?:GraphQL[ _]?)?validation[ _]?(?:error|failed))"
# The sentence stands at the beginning of the message, or after one of these prefixes.
_BEFORE = (
    rf"^\s*(?:GraphQL error: )?(?:{_VALIDATION}: |\[{_VALIDATION}\]:? )?"
    r"(?:Validation error \([^)]*\) ?: ?|Validation error of type \w+: )?"
    r"(?:(?:Variable|Argument) [\"'`]?\$?\w+[\"'`]? (?:of type \S+ )?"
    r"(?:got|has|was provided|has an) invalid value\b.{0,4000}?[;:.(\n] ?)?"
)
_NAME = r"[\"'`]\$?(?P<name>\w+)[\"'`]"
_ANY = r"[\"'`<] ?[\w.!\[\]]+ ?[\"'`>]"
_SENTENCES = tuple(
    re.compile(_BEFORE + sentence, re.DOTALL)
    for sentence in (
        # graphql-js and its ports, among them graphql-core (graphene, strawberry, ariadne), Apollo, gqlgen,
        # graphql-php, juniper, async-graphql, Absinthe, Sangria, GraphQL.NET
        rf"Cannot query field {_NAME} on type {_ANY}",
        rf"Unknown (?:argument|field) {_NAME} on (?:field|type) {_ANY}",
        rf"Unknown type {_NAME}",
        rf"Field {_NAME} is not defined by type {_ANY}",
        # graphql-js 17 and graphql-core 3.3
        rf"Expected value of type {_ANY} not to include unknown field {_NAME}",
        rf"In field {_NAME}: Unknown field",
        # graphql-java; before its version 17, and in AWS AppSync, the name stands without quotes
        rf"Unknown field argument {_NAME}",
        r"Unknown field argument (?P<name>\w+) @ ",
        rf"Field {_NAME} in type {_ANY} is undefined",
        rf"The variables input contains a field name {_NAME} that is not defined",
        # Hot Chocolate
        rf"The (?:argument|field) {_NAME} does not exist(?: on the type {_ANY})?\.?\s*$",
        rf"The specified input object field {_NAME} does not exist",
        # graphql-ruby
        rf"(?:Field|InputObject) {_ANY} doesn't accept argument {_NAME}",
        rf"Field {_NAME} doesn't exist on type {_ANY}",
        r"(?P<name>\w+) isn't a defined input type \(on ",
        # Hasura
        rf"{_ANY} has no argument named {_NAME}",
        rf"field {_NAME} not found in type: ",
        # Tartiflette
        r"Provided Argument < (?P<name>\w+) > doesn't exist on field <",
    )
)
# For a query, any prefix may stand before the sentence: a query that is sent again by mistake does no harm.
_ANY_LABEL = re.compile(r"^\s*(?:\[[^\]\n]{1,40}\]:?|[\w .-]{1,40}:)\s+")
# For an operation that is safe to repeat, less is enough: the name in quotes beside a word such as "field", and a word
# such as "unknown".
_UNKNOWN = re.compile(
    r"unknown|unexpected|unsupported|unrecogni[sz]ed|undefined|no such|has no|cannot query"
    r"|not (?:defined|supported|recogni[sz]ed)|does(?: not|n't) (?:accept|exist|have|know|support)",
    re.IGNORECASE,
)
_KIND = r"(?:arguments?|fields?|variables?|parameters?|keys?)"
_BESIDE = re.compile(
    rf"\b{_KIND}(?: (?:named|called))?:? ?[\"'`]\$?(?P<after>\w+)[\"'`]|[\"'`]\$?(?P<before>\w+)[\"'`] {_KIND}\b",
    re.IGNORECASE,
)
# Every backend knows these names. An error that contains such a name is about the value, not about the name.
_OF_THE_REFERENCE = frozenset(
    (
        "scheduleName",
        "commands",
        "branch",
        "scheduleRunId",
        "runId",
        "commandId",
        "resourceId",
        "offset",
        "limit",
        "showInactive",
    )
)


def missing_name(operation: Operation, entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the name of the argument, field or type that is not in the backend's schema, according to an error.

    Args:
        operation: The operation that was sent.
        entries: The `errors` of the reply.

    Returns:
        The name; None if the errors are about anything else, or if the server has executed a part of the operation.
    """
    if any(_is_of_execution(operation, entry.get("path")) for entry in entries):
        return None
    texts = [str(entry.get("message") or "") for entry in entries]
    if operation.kind == "query":
        texts += [_ANY_LABEL.sub("", text) for text in texts]
    told = next((match["name"] for text in texts for match in _sentences_of(text)), None)
    if told is not None or not operation.resend:
        return told
    candidates = {*operation.newer.split(), *operation.arguments, operation.field} - _OF_THE_REFERENCE
    beside = (
        match["after"] or match["before"]
        for text in texts
        if _UNKNOWN.search(text)
        for match in _BESIDE.finditer(text)
    )
    return next((name for name in beside if name in candidates), None)


def _sentences_of(text: str) -> Iterator[re.Match[str]]:
    return (match for match in (sentence.search(text) for sentence in _SENTENCES) if match is not None)


def _is_of_execution(operation: Operation, path: object) -> bool:
    """Whether the server has found an error during the execution of an operation, according to the error's path.

    The path of such an error begins with a field of the reply. A validation error usually has no path. In
    graphql-ruby, it has a path that begins with `query`, `mutation` or `fragment`.

    Args:
        operation: The operation that was sent.
        path: The `path` of the error in the reply.
    """
    if not isinstance(path, (list, tuple)) or not path:
        return False
    return path[0] == operation.field or not re.match(r"(?:query|mutation|fragment)\b", str(path[0]))
