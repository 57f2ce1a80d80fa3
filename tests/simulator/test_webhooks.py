"""The simulator sends webhooks as Bolt does, and as Bolt might."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from paradime_blocks.testing import BoltSimulator, Delivery, SimulatedCommand


@pytest.fixture
def receiver():
    """A server that keeps the bodies in `bodies`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.bodies.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bodies = []
    server.url = f"http://127.0.0.1:{server.server_port}/hooks/secret?x=1"
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def simulator():
    with BoltSimulator(speed=0) as simulator:
        command = SimulatedCommand("dbt run", duration_seconds=30)
        simulator.add_schedule("daily", commands=[command], setup_commands=False, starting_seconds=5)
        yield simulator


def events(simulator, count):
    simulator.wait_for(lambda s: len(s.webhooks_sent) >= count)
    return [(sent.event, sent.status) for sent in simulator.webhooks_sent]


def test_a_run_sends_its_start_and_its_end(simulator, receiver):
    """Nothing is sent before the first command begins."""
    simulator.start_run("daily")
    simulator.add_webhook(receiver.url)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(4)
    assert simulator.webhooks_sent == []
    simulator.clock.advance(10)
    assert events(simulator, 2) == [("started", 202)] * 2
    simulator.clock.advance(60)
    assert events(simulator, 4)[2:] == [("completed", 202)] * 2
    path, kind, body = receiver.bodies[-1]
    assert (path, kind) == ("/hooks/secret?x=1", "application/json")
    assert body["api_url"] == simulator.api_endpoint
    (command,) = body["commands"]
    assert command["id"] == simulator.run(run_id).commands[0].id
    assert (command["status"], command["return_code"]) == ("succeeded", 0)
    assert {each["path"] for each in command["json_resources"]} == {
        "target/manifest.json",
        "target/run_results.json",
    }
    started = receiver.bodies[0][2]["commands"][0]
    assert (started["status"], started["return_code"], started["end_dttm"]) == ("running", None, None)
    assert simulator.webhook_body(run_id) == body


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"completed": Delivery(times=2)}, ["started", "completed", "completed"]),
        ({"started": Delivery(delay_seconds=60)}, ["completed", "started"]),
        ({"started": Delivery(times=0)}, ["completed"]),
    ],
    ids=["twice", "out of order", "never"],
)
def test_deliveries_are_as_the_test_wants_them(simulator, receiver, options, expected):
    simulator.add_webhook(receiver.url, **options)
    simulator.start_run("daily")
    simulator.clock.advance(200)
    assert [event for event, _ in events(simulator, len(expected))] == expected


def test_a_failed_run_completes_and_a_cancelled_run_does_not(simulator, receiver):
    """As the vendor's page says of failed runs; of cancelled runs it says nothing."""
    simulator.add_webhook(receiver.url)
    simulator.finish(simulator.start_run("daily"), "CANCELED")
    failed = simulator.start_run("daily")
    simulator.clock.advance(10)
    simulator.finish(failed, "FAILED")
    simulator.clock.advance(100)
    assert events(simulator, 2) == [("started", 202), ("completed", 202)]
    assert {sent.run_id for sent in simulator.webhooks_sent} == {failed}


def test_what_is_older_than_the_webhook_is_not_sent(simulator, receiver):
    """A new webhook tells nothing about the past."""
    simulator.start_run("daily")
    simulator.clock.advance(100)
    simulator.add_webhook(receiver.url)
    simulator.clock.advance(1)
    simulator.start_run("daily")
    simulator.clock.advance(100)
    assert len(events(simulator, 2)) == 2


def test_an_outage_holds_webhooks_back_and_nobody_may_listen(simulator, receiver):
    """After the outage, what has come due is sent; a refused connection is an answer of None."""
    simulator.add_webhook(receiver.url)
    simulator.add_webhook("http://127.0.0.1:9/nobody")
    simulator.stop()
    simulator.start_run("daily")
    simulator.clock.advance(100)
    assert simulator.webhooks_sent == []
    simulator.start()
    assert sorted(events(simulator, 4), key=str) == [
        ("completed", 202),
        ("completed", None),
        ("started", 202),
        ("started", None),
    ]
    simulator.reset()
    assert simulator.webhooks_sent == []
