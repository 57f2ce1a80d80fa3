"""Keeps the queries of signed links out of all logs: a query gives access to the file.

httpx logs the address of each request at INFO, redirects' included, and httpcore the headers of each answer
at DEBUG. Both have one logger for all clients of a process, so that ours are known by the context that they
send from.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from paradime_blocks.text.redaction import REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterator

# A filter sees the records of its own logger only, not those of the loggers below it.
_LOGGERS: Final = ("httpx", "httpcore.http11", "httpcore.http2", "httpcore.connection", "httpcore.proxy")
_QUERY: Final = re.compile(r"\?[^\s\"'<>]+")

_signed: ContextVar[bool] = ContextVar("paradime_signed_request", default=False)


class _WithoutQueries(logging.Filter):
    """Takes the queries out of what is logged of a signed request; all other records pass as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: nothing is held back."""
        if _signed.get():
            record.msg, record.args = _QUERY.sub(f"?{REMOVED}", record.getMessage()), ()
        return True


_WITHOUT_QUERIES: Final = _WithoutQueries()


@contextmanager
def queries_unlogged() -> Iterator[None]:
    """Keep the queries of the requests that are sent within out of all logs.

    Not to be held across a `yield` of an asynchronous generator, whose context is its caller's.
    """
    for name in _LOGGERS:
        # Each time, since whoever sets up logging may take filters away; twice the same makes no difference.
        logging.getLogger(name).addFilter(_WITHOUT_QUERIES)
    token = _signed.set(True)
    try:
        yield
    finally:
        _signed.reset(token)
