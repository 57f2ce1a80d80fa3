"""Which processes notice a signal: one that has imported us, in any thread, but not its forked children."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.processes

READ_IN_A_THREAD = """
    import importlib, os, signal, threading, time
    signal.signal(signal.SIGTERM, lambda *_: None)
    reader = threading.Thread(target=importlib.import_module, args=["paradime_flows.prefect_api.signals"])
    reader.start()
    reader.join()
    from paradime_blocks.signals import heard_since
    os.kill(os.getpid(), signal.SIGTERM)
    until = time.monotonic() + 10
    while not heard_since(0.0) and time.monotonic() < until:
        time.sleep(0.01)
    print(heard_since(0.0))
"""
FORKED = """
    import os, signal, time
    import paradime_flows.prefect_api.signals
    from paradime_blocks.signals import heard_since
    signal.signal(signal.SIGTERM, lambda *_: None)
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.2)
    heard = heard_since(0.0)
    os.kill(os.getpid(), signal.SIGTERM)
    until = time.monotonic() + 10
    while heard_since(0.0) == heard and time.monotonic() < until:
        time.sleep(0.01)
    print(heard, heard_since(0.0))
"""


@pytest.mark.parametrize(
    "program,printed",
    [
        pytest.param(
            READ_IN_A_THREAD, "1", id="imported in a thread, as Prefect imports a deployment's flows"
        ),
        pytest.param(FORKED, "0 1", id="forked"),
    ],
)
def test_a_process_notices_only_its_own_signals(program, printed) -> None:
    """The process listens by the time the main thread continues."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == printed, done.stderr
