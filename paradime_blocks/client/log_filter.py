"""Keeps the queries of signed URLs out of all logs: such a query gives access to the file.

At INFO, httpx logs the URL of each request, redirects included. At DEBUG, httpcore logs the headers of each
response. httpx and httpcore use the same loggers for all clients in a process. So a context variable marks our own
requests.
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

# A filter sees only the log records of its own logger, not those of child loggers.
_LOGGERS: Final = ("httpx", "httpcore.http11", "httpcore.http2", "httpcore.connection", "httpcore.proxy")
_QUERY: Final = re.compile(r"\?[^\s\"'<>]+")

_signed: ContextVar[bool] = ContextVar("paradime_signed_request", default=False)


class _WithoutQueries(logging.Filter):
    """Removes the queries from the log records of a request to a signed URL. Other log records do not change."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, so that each log record is kept."""
        if _signed.get():
            record.msg, record.args = _QUERY.sub(f"?{REMOVED}", record.getMessage()), ()
        return True


_WITHOUT_QUERIES: Final = _WithoutQueries()


@contextmanager
def queries_unlogged() -> Iterator[None]:
    """Keep the queries of the requests that are sent during the `with` block out of all logs.

    An asynchronous generator must not `yield` inside of the `with` block. After the `yield`, it may run in another
    context, in which the block cannot end.
    """
    for name in _LOGGERS:
        # The filter is added each time, since a new logging configuration may have removed it. A logger keeps only one
        # copy.
        logging.getLogger(name).addFilter(_WITHOUT_QUERIES)
    token = _signed.set(True)
    try:
        yield
    finally:
        _signed.reset(token)
