"""The outer part of the simulator: its settings, its address, and the credentials that it accepts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .access import Access
from .api import GraphQLApi
from .clock import Clock
from .faultbox import FaultBox
from .requests import RequestLog
from .resolvers import Resolvers
from .resources import SignedPaths
from .server import SimulatorServer
from .service import Service
from .state import Workspace
from .webhooks import WebhookSender, body_of

if TYPE_CHECKING:
    from typing_extensions import Self


class SimulatorHost:
    """A workspace behind a socket that can be opened and closed. Tests use the subclass `BoltSimulator`."""

    def __init__(
        self,
        *,
        speed: float = 1.0,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "simulated-key",
        api_secret: str | None = None,
        read_only: bool | Literal["status", "graphql"] = False,
        bearer: str | None = None,
        workspace_uid: str = "simulated-workspace",
        resource_url_seconds: float = 900.0,
        validation_status: int = 200,
        unfinished_end: str | None = "",
        log_batch_lines: int = 500,
        first_run_id: int = 76001,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up a workspace with no schedules.

        Args:
            speed: Virtual seconds per real second. With 0, time moves only through `clock.advance`.
            host: The address to listen on.
            port: The port to listen on. With 0, the simulator takes a free port, and its endpoint differs from the
                endpoints of all other simulators, even if another simulator used the same port before. (Clients
                identify a workspace by its endpoint.)
            api_key: The only API key that is accepted.
            api_secret: The secret for this key. By default, the secret is random.
            read_only: Whether the key may only read. Mutations are then answered with status 403 (True or
                `"status"`), or with a GraphQL error for each of their fields (`"graphql"`).
            bearer: A token (`prdm_wsp_...`, `prdm_cmp_...`) that is accepted instead of the key pair.
            workspace_uid: The workspace that a company token (`prdm_cmp_...`) must select.
            resource_url_seconds: How long the URL of a resource is valid, in virtual seconds.
            validation_status: The HTTP status of responses to documents that do not fit the schema: 200, or
                400 as some GraphQL servers use.
            unfinished_end: The `endDttm` of a command that is still running: an empty text, or null.
            log_batch_lines: How many lines one call of `boltCommandLogs` returns at most.
            first_run_id: The id of the first run.
            monotonic: A function that returns the real time in seconds.
        """
        self.api_key = "" if bearer else api_key
        self.api_secret = bearer or api_secret or f"simulated-{secrets.token_hex(8)}"
        self.bearer = bearer
        self.workspace_uid = workspace_uid
        self.clock = Clock(speed, monotonic=monotonic)
        self._speed = speed
        self._address = (host, port)
        self._workspace = Workspace(self.clock, first_run_id)
        self._faults = FaultBox()
        self._log = RequestLog()
        self._paths = SignedPaths(self.clock, resource_url_seconds)
        resolvers = Resolvers(
            self._workspace,
            self._resource_url,
            unfinished_end=unfinished_end,
            log_batch_lines=log_batch_lines,
        )
        self._api = GraphQLApi(self._workspace, resolvers)
        self.service = Service(
            api=self._api,
            workspace=self._workspace,
            clock=self.clock,
            access=Access(
                api_key=self.api_key,
                api_secret=self.api_secret,
                bearer=bearer,
                workspace_uid=workspace_uid,
                read_only="status" if read_only is True else read_only,
            ),
            paths=self._paths,
            faults=self._faults,
            log=self._log,
            validation_status=validation_status,
            graphql_path=f"/api/v1/{'simulated' if port else secrets.token_hex(8)}/graphql",
        )
        self._webhooks = WebhookSender(self._workspace, self.clock, self._webhook_body)
        self._server: SimulatorServer | None = None
        self.bad_requests_allowed = False

    def start(self) -> Self:
        """Start the server. If the server is already running, do nothing."""
        if self._server is None:
            self._server = SimulatorServer(self._address, self.service)
            # After a stop, the same port is used again: clients keep the address during an outage.
            self._address = (self._address[0], self._server.server_port)
            self._server.start()
            self._webhooks.start()
        return self

    def stop(self) -> None:
        """Refuse new connections, reset open connections, and end all faults that hold a response back."""
        if self._server is not None:
            self._webhooks.stop()
            self._server.close()
            self._server = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the server."""
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the server's root."""
        host, port = self._address
        if port == 0:
            message = "The simulator has no address before it has been started."
            raise RuntimeError(message)
        # Clients cannot connect to the wildcard address.
        return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}"  # noqa: S104

    @property
    def api_endpoint(self) -> str:
        """The GraphQL endpoint, as shown in the workspace's settings."""
        return f"{self.url}{self.service.graphql_path}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that a client needs for this simulator."""
        environment = {"PARADIME_API_ENDPOINT": self.api_endpoint, "PARADIME_API_SECRET": self.api_secret}
        if self.bearer is None:
            environment["PARADIME_API_KEY"] = self.api_key
        else:
            environment["PARADIME_WORKSPACE_UID"] = self.workspace_uid
        return environment

    def _resource_url(self, resource_id: int, path: str) -> str:
        return f"{self.url}{self._paths.sign(resource_id, path)}"

    def _webhook_body(self, run_id: int) -> dict[str, Any]:
        with self._workspace.lock:
            return body_of(self._workspace.run(run_id).snapshot(self.clock.seconds()), self.api_endpoint)
