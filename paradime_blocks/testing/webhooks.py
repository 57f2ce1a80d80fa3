"""The webhooks of the simulator: Bolt tells a URL when a run has started and when it has completed."""

from __future__ import annotations

import heapq
import http.client
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from .clock import Clock, as_text
from .runs import ERROR, FAILED, SUCCESS, Run, SimulatedRun
from .state import Workspace

WebhookEvent = Literal["started", "completed"]
# The vendor's page says "failed or succeeded". That a cancelled run sends nothing is an inference.
_COMPLETED = (SUCCESS, FAILED, ERROR)
_GLANCE_SECONDS = 0.01
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Delivery:
    """How often and when a webhook is sent.

    Attributes:
        times: How often it is sent: 0 for never, 2 for twice.
        delay_seconds: How late it is sent, in virtual seconds. If `started` is later than `completed`, the two arrive
            out of order.
    """

    times: int = 1
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class SentWebhook:
    """A webhook that was sent.

    Attributes:
        run_id: The run that the webhook is about.
        event: What happened to the run.
        status: The HTTP status of the answer; None if there was none.
        at: When it was sent, in virtual time.
    """

    run_id: int
    event: WebhookEvent
    status: int | None
    at: datetime


@dataclass(frozen=True)
class _Webhook:
    url: str
    deliveries: Mapping[WebhookEvent, Delivery]
    since: float


def body_of(run: SimulatedRun, api_url: str) -> dict[str, Any]:
    """Return the body of a webhook about a run.

    It holds what the vendor's page shows of a completed run. The body of a run that has started was never seen: here it
    has the same form, with the commands that have started so far.

    Args:
        run: The run.
        api_url: The GraphQL endpoint of the workspace.
    """
    return {"api_url": api_url, "commands": [_command(command) for command in run.commands]}


def _command(command: Any) -> dict[str, Any]:
    status = {SUCCESS: "succeeded", FAILED: "failed"}.get(command.state, command.state.lower())
    return {
        "id": command.id,
        "command": command.command,
        "status": status,
        "return_code": command.return_code,
        "start_dttm": as_text(command.started_at.timestamp()),
        "end_dttm": as_text(command.ended_at.timestamp()) if command.ended_at else None,
        "api_query": f"query {{ boltCommand(commandId: {command.id}) {{ scheduleRunId stdout stderr }} }}",
        "json_resources": [
            {
                "id": resource.id,
                "path": resource.path,
                "resource_query": f"query {{ boltResourceUrl(resourceId: {resource.id}) {{ url }} }}",
            }
            for resource in command.resources
            if resource.path.endswith(".json")
        ],
    }


def post(url: str, body: Mapping[str, Any]) -> int | None:
    """Send a webhook, and return the HTTP status of the answer; None if there is no answer."""
    parts = urlsplit(url)
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = make(parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class WebhookSender:
    """Sends the webhooks of a workspace from a thread of its own, one after another.

    A webhook that gets no answer is not sent again: whether Bolt sends it again is not known.

    Args:
        workspace: The workspace.
        clock: The clock of the workspace's runs.
        body: Returns the body of the webhooks about a run.
    """

    def __init__(self, workspace: Workspace, clock: Clock, body: Callable[[int], dict[str, Any]]) -> None:
        self._workspace = workspace
        self._clock = clock
        self._body = body
        self._webhooks: list[_Webhook] = []
        self._noticed: set[tuple[int, WebhookEvent]] = set()
        self._due: list[tuple[float, int, _Webhook, int, WebhookEvent]] = []
        self._number = itertools.count()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent: list[SentWebhook] = []

    def add(self, url: str, started: Delivery, completed: Delivery) -> None:
        """Send webhooks to a URL about all that happens from now on."""
        self._webhooks.append(
            _Webhook(url, {"started": started, "completed": completed}, self._clock.seconds())
        )

    def clear(self) -> None:
        """Forget all webhooks."""
        self._webhooks, self._due, self.sent = [], [], []
        self._noticed = set()

    def start(self) -> None:
        """Start to send. What has come due in the meantime is sent now."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, daemon=True, name="bolt-webhooks")
        self._thread.start()

    def stop(self) -> None:
        """Stop to send, after the webhook that is on its way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while not self._stopping.wait(_GLANCE_SECONDS):
            if self._webhooks:
                self._notice()
                self._send_due()

    def _notice(self) -> None:
        now = self._clock.seconds()
        with self._workspace.lock:
            happened = [
                (at, run.id, event)
                for run in self._workspace.runs()
                for event, at in _happened(run, now).items()
                if (run.id, event) not in self._noticed
            ]
        for at, run_id, event in sorted(happened):
            self._noticed.add((run_id, event))
            for webhook in self._webhooks:
                delivery = webhook.deliveries[event]
                if at < webhook.since:
                    continue
                for _ in range(delivery.times):
                    entry = (at + delivery.delay_seconds, next(self._number), webhook, run_id, event)
                    heapq.heappush(self._due, entry)

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= self._clock.seconds() and not self._stopping.is_set():
            _, _, webhook, run_id, event = heapq.heappop(self._due)
            status = post(webhook.url, self._body(run_id))
            self.sent.append(SentWebhook(run_id, event, status, self._clock.now()))


def _happened(run: Run, now: float) -> dict[WebhookEvent, float]:
    found: dict[WebhookEvent, float] = {}
    first = next(run.commands(now), None)
    if first is not None:
        found["started"] = first.started_at.timestamp()
    end = run.end()
    if now >= end.at and end.state in _COMPLETED:
        found["completed"] = end.at
    return found
