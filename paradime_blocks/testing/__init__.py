"""A Bolt workspace to test against: a real HTTP server that speaks the Bolt API, with faults on demand.

Example:
    >>> from paradime_blocks.testing import BoltSimulator, faults
    >>> with BoltSimulator(speed=60) as simulator:
    ...     simulator.add_schedule("daily", commands=["dbt run"])
    ...     simulator.inject(faults.Status(503, operation="boltRunStatus"))
    ...     sorted(simulator.environment())
    ['PARADIME_API_ENDPOINT', 'PARADIME_API_KEY', 'PARADIME_API_SECRET']
"""

try:
    import graphql as _graphql  # noqa: F401 - imported only to report that the package is missing.
except ModuleNotFoundError as error:
    _MESSAGE = "The Bolt simulator needs graphql-core: pip install 'prefect-paradime[testing]'"
    raise ModuleNotFoundError(_MESSAGE, name="graphql") from error

from . import faults
from .clock import Clock
from .commands import SimulatedCommand
from .requests import RecordedRequest
from .runs import SimulatedResource, SimulatedRun, SimulatedRunCommand
from .simulator import BoltSimulator
from .webhooks import Delivery, SentWebhook

__all__ = [
    "BoltSimulator",
    "Clock",
    "Delivery",
    "RecordedRequest",
    "SentWebhook",
    "SimulatedCommand",
    "SimulatedResource",
    "SimulatedRun",
    "SimulatedRunCommand",
    "faults",
]
