"""The simulator and the vendor's SDK in one process, in an environment without Prefect.

`import paradime_blocks.testing` would first import `paradime_blocks`, which needs Prefect. The simulator
imports nothing from the rest of the package, so it is loaded from its folder under another name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore_glob = [] if importlib.util.find_spec("paradime") else ["test_*.py"]

# The SDK reads credentials and keeps a cache in the home folder, and searches for newer versions of itself.
os.environ["HOME"] = tempfile.mkdtemp(prefix="paradime-sdk-home-")
os.environ["PARADIME_DISABLE_VERSION_CHECK"] = "1"
os.environ["PARADIME_DISABLE_TELEMETRY"] = "1"
for _name in ("PARADIME_API_ENDPOINT", "PARADIME_API_KEY", "PARADIME_API_SECRET", "PARADIME_WORKSPACE_UID"):
    os.environ.pop(_name, None)

_FOLDER = Path(__file__).resolve().parents[2] / "paradime_blocks" / "testing"


def _load_simulator() -> Any:
    name = "bolt_simulator_under_contract"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _FOLDER / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def testing() -> Any:
    """The module `paradime_blocks.testing`, under another name."""
    return _load_simulator()


@pytest.fixture
def simulator(testing: Any) -> Iterator[Any]:
    """A simulator whose time stands still; it must understand every request of the SDK."""
    with testing.BoltSimulator(speed=0) as simulator:
        yield simulator
    slips = [(request.query, request.not_understood) for request in simulator.bad_requests]
    assert slips == [], f"the simulator did not understand the vendor's SDK: {slips}"


@pytest.fixture
def sdk(simulator: Any) -> Any:
    """The vendor's client, pointed at the simulator."""
    from paradime import Paradime

    return Paradime(
        api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
    )


@pytest.fixture
def bolt(sdk: Any) -> Any:
    """The part of the vendor's client for Bolt."""
    return sdk.bolt
