"""Reads many objects in one request, with aliases of GraphQL, or one by one if the backend refuses aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from paradime_blocks.client.retry import call_with_retries
from paradime_blocks.client.session import BoltSession, Model, understood
from paradime_blocks.errors import (
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from paradime_blocks.client.large_replies import LargeTexts
    from paradime_blocks.client.operations import Operation

_ALIASES: Final = "aliases"
# The largest number of objects in one request, because a backend may limit the size of a document.
ALIASES_PER_REQUEST: Final = 100


def _understood_each(
    operation: Operation, each: Sequence[Mapping[str, Any]], model: type[Model], replies: Sequence[Any]
) -> Iterator[Model | BoltError]:
    for asked, reply in zip(each, replies, strict=True):
        if isinstance(reply, BoltError):
            yield reply
            continue
        try:
            yield understood(operation, asked, model, reply)
        except BoltError as error:
            yield error


def sorted_out(
    replies: Mapping[int, Model | BoltError], errors: dict[int, BoltError] | None
) -> dict[int, Model]:
    """Return the replies that are not errors, and collect the errors.

    Args:
        replies: For each key, the reply or the error.
        errors: Collects the errors. If `errors` is None, the first error is raised.
    """
    found: dict[int, Model] = {}
    for key, reply in replies.items():
        if isinstance(reply, BoltError):
            if errors is None:
                raise reply
            errors[key] = reply
        else:
            found[key] = reply
    return found


class AliasedReads(BoltSession):
    """Reads many objects with as few requests as the backend allows."""

    @property
    def refuses_aliases(self) -> bool:
        """Whether the backend has refused aliases, so that each object needs a request of its own."""
        return _ALIASES in self._open_connection().known.refused

    async def _read_each(
        self,
        operation: Operation,
        each: Sequence[dict[str, Any]],
        model: type[Model],
        *,
        repeat: bool = True,
        large: LargeTexts | None = None,
    ) -> list[Model | BoltError]:
        """Send one query for several sets of variables: with aliases, or one request per set if aliases are refused.

        If the query fails for one set, the list has the error at the place of this set. An error that concerns all
        sets, such as refused credentials or an outage, is raised.

        Args:
            operation: The query.
            each: The sets of variables.
            model: The model of a reply.
            repeat: Whether to send the request again if only some of the replies are usable.
            large: Receives the long texts of the replies; None to have them in the replies.
        """
        found: list[Model | BoltError] = []
        for start in range(0, len(each), ALIASES_PER_REQUEST):
            chunk = each[start : start + ALIASES_PER_REQUEST]
            found.extend(await self._read_chunk(operation, chunk, model, repeat=repeat, large=large))
        return found

    async def _read_chunk(
        self,
        operation: Operation,
        each: Sequence[dict[str, Any]],
        model: type[Model],
        *,
        repeat: bool,
        large: LargeTexts | None,
    ) -> list[Model | BoltError]:
        if len(each) > 1 and not self.refuses_aliases:
            found = await self._read_aliased(operation, each, model, repeat=repeat, large=large)
            if found is not None:
                return found
            # The whole request fails if the backend refuses aliases. With some backends, it also fails if one of the
            # objects does not exist. Single queries show which of the two is the reason.
            singles = await self._read_singles(operation, each, model, large)
            if not any(isinstance(single, BoltError) for single in singles):
                self._open_connection().known.refused.add(_ALIASES)
            return singles
        return await self._read_singles(operation, each, model, large)

    async def _read_aliased(
        self,
        operation: Operation,
        each: Sequence[dict[str, Any]],
        model: type[Model],
        *,
        repeat: bool,
        large: LargeTexts | None,
    ) -> list[Model | BoltError] | None:
        """Return the replies or errors of one request; None if Bolt refused the request as a whole."""
        connection = self._open_connection()
        latest: list[Model | BoltError] = []

        def has_values() -> bool:
            return any(isinstance(found, BaseModel) for found in latest)

        async def call() -> None:
            latest.clear()
            replies = await connection.send_aliased(operation, each, large=large)
            latest.extend(_understood_each(operation, each, model, replies))
            if repeat or not has_values():
                # This error is raised, so that the request is sent again, as a single query would be.
                for error in (found for found in latest if isinstance(found, BoltUnavailable)):
                    raise error

        try:
            await call_with_retries(call, self.retry_policy, sleep=self._sleep)
        except BoltAuthError:
            raise
        except (BoltRequestError, BoltUnavailable) as error:
            # If `latest` has values, they are from the last reply. For each missing value, `latest` has an error.
            if not has_values():
                if isinstance(error, BoltUnavailable) and not error.graphql_errors:
                    raise
                return None
        return latest

    async def _read_singles(
        self,
        operation: Operation,
        each: Sequence[dict[str, Any]],
        model: type[Model],
        large: LargeTexts | None,
    ) -> list[Model | BoltError]:
        found: list[Model | BoltError] = []
        for variables in each:
            try:
                found.append(await self._read(operation, variables, model, large))
            except (BoltAuthError, BoltUnsupported):
                # The other queries would fail, too.
                raise
            except BoltUnavailable as error:
                if not error.graphql_errors:
                    # Bolt is unreachable: the other queries would fail, too, each of them after all retries.
                    raise
                found.append(error)
            except BoltRequestError as error:
                found.append(error)
        return found
