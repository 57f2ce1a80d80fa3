"""No error of a request contains a secret."""

from __future__ import annotations

import io
import logging
import pickle
import traceback

import pytest
from support.credentials import credentials_for
from tblib import pickling_support

from paradime_blocks import BoltError
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.testing import BoltSimulator, faults

# Dask installs tblib: a pickle of an error then also holds its causes.
pickling_support.install()


# A secret that must not be found anywhere.
NEEDLE = "n33dle-in-the-haystack"


def _everything_said(error: BaseException) -> str:
    """Everything that a log, a traceback, a debugger's repr or a pickle shows of an error and its causes."""
    said = ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    link: BaseException | None = error
    while link is not None:
        said += [str(link), repr(link), repr(link.args), repr(vars(link))]
        if isinstance(link, BoltError):
            said.append(repr(pickle.dumps(link)))
        link = link.__cause__ or link.__context__
    return "\n".join(said)


FAULTS = [
    pytest.param(faults.Status(401), id="401"),
    pytest.param(faults.Status(403), id="403"),
    pytest.param(faults.Status(404), id="404"),
    pytest.param(faults.Status(503), id="503"),
    pytest.param(faults.CutConnection(), id="cut"),
    pytest.param(faults.Garbage(), id="garbage"),
    pytest.param(faults.GraphQLError("no"), id="GraphQL error"),
    pytest.param(faults.MissingData("nulls"), id="fields null"),
    pytest.param(faults.Redirect("https://elsewhere.example.com"), id="redirect"),
    pytest.param(faults.Hang(60), id="time-out"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_of_a_request_shows_the_secret(fault):
    """It is in no message, cause, traceback or pickle, and in no log line, including httpx's own."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with BoltSimulator(speed=0, api_secret=NEEDLE) as simulator:
            simulator.inject(fault)
            seconds = 0.3 if isinstance(fault, faults.Hang) else 30.0
            credentials = credentials_for(simulator, request_timeout_seconds=seconds)
            async with credentials.get_client(retry_policy=RetryPolicy(attempts=1)) as client:
                with pytest.raises(BoltError) as caught:
                    await client.list_bolt_schedules()
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    assert log.getvalue()
    said = _everything_said(caught.value) + log.getvalue()
    at = said.find(NEEDLE)
    assert at < 0, f"it shows in …{said[max(0, at - 500) : at + 100]!r}"
