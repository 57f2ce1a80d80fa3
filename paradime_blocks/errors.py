"""The errors about Bolt, one class for each thing that the caller can do next.

```
BoltError
├── BoltAuthError            fix the credentials
├── BoltRequestError         fix the request: Bolt rejected it
│   └── BoltUnsupported      this workspace's backend lacks the operation, field or argument
├── BoltUnavailable          try again later: Bolt sent no usable answer
├── BoltTriggerUnknown       check in Paradime: a run may have started, and it is unknown which
├── BoltAlreadyRunning       wait, attach, or choose another `on_already_running`
├── BoltPipelineFailed       fix the failed steps; a retry skips those that succeeded
└── BoltRunError             a run exists and did not succeed
    ├── BoltRunFailed        read the failing command's log
    ├── BoltRunCanceled      somebody cancelled it
    ├── BoltRunSkipped       Bolt chose not to run it
    ├── BoltRunTimedOut      it exceeded timeout_seconds
    └── BoltCancelUnconfirmed    check in Paradime: the run may still be running
```

Each error has its facts as attributes and in its message. A pickled error keeps its facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks.text.rendering import clean, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG_TAIL_CHARACTERS = 1200
_STEPS_SHOWN = 10
_SHORTEST_LOG_TAIL = 300
_FACT_CHARACTERS = 200
_DBT_ERROR_CHARACTERS = 400
_FACTS_IN_MESSAGE = ("schedule_name", "run_id", "state", "operation", "path", "status_code", "url")
_FACT_TITLES = {
    "schedule_name": "schedule",
    "run_id": "Bolt run",
    "state": "state in Bolt",
    "status_code": "HTTP status",
}


def _rebuild(cls: type[BoltError], message: str, facts: Mapping[str, Any]) -> BoltError:
    return cls(message, **facts)


class BoltError(Exception):
    """Base of every error that this package raises about Bolt.

    Args:
        message: A sentence that says what happened.
        guidance: A sentence that says what to do next. Each class has a default.
        schedule_name: The schedule that the error is about.
        run_id: The id of the Bolt run that the error is about.
        state: The last known state of the run in Bolt.
        url: The URL of the run's page in Paradime.
        facts: Further facts. Each becomes an attribute of the error.

    Example:
        ```python
        from paradime_blocks import BoltError

        error = BoltError("The schedule is unknown.", schedule_name="daily", guidance="Check its name.")
        assert error.schedule_name == "daily"
        assert "Check its name." in str(error)
        ```
    """

    guidance: str = ""

    def __init__(
        self,
        message: str,
        *,
        guidance: str | None = None,
        schedule_name: str | None = None,
        run_id: int | None = None,
        state: str | None = None,
        url: str | None = None,
        **facts: Any,
    ) -> None:
        self.message = message
        self.schedule_name = schedule_name
        self.run_id = run_id
        self.state = state
        self.url = url
        self._facts: dict[str, Any] = {
            "guidance": guidance,
            "schedule_name": schedule_name,
            "run_id": run_id,
            "state": state,
            "url": url,
            **facts,
        }
        if guidance is not None:
            self.guidance = guidance
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(self._message())

    def _message(self) -> str:
        facts = [
            f"{_FACT_TITLES.get(name, name)}: {_plain(self._facts[name])}"
            for name in _FACTS_IN_MESSAGE
            if self._facts.get(name) not in (None, "", ())
        ]
        first = f"{self.message} ({', '.join(facts)})" if facts else self.message
        parts = [first, *self._details()]
        if self.guidance:
            parts.append(self.guidance)
        return "\n".join(parts) if len(parts) > 2 else " ".join(parts)  # noqa: PLR2004

    def _details(self) -> list[str]:
        """Return the lines between the facts and the guidance. A class with further facts overrides this method."""
        return []

    def with_facts(self, *, message: str | None = None, **facts: Any) -> BoltError:
        """Return a copy of the error with more facts, for a caller that knows the schedule or the run.

        Facts that the error already has do not change.

        Args:
            message: The message of the copy; None keeps the message of this error.
            facts: Further facts.
        """
        known = {name: value for name, value in self._facts.items() if value is not None}
        copy = type(self)(message or self.message, **{**facts, **known})
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Prefect pickles exceptions: create the error again from its facts, not from its complete message."""
        return _rebuild, (type(self), self.message, dict(self._facts))


def _last_lines(text: str, characters: int) -> str:
    """Return the end of a text. It begins at the beginning of a line, if one is near."""
    end = text[-characters:]
    first, newline, rest = end.partition("\n")
    return rest if len(text) > characters and newline and len(first) < characters // 2 else end


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = ".".join(str(part) for part in value)
    return one_line(str(getattr(value, "value", value)), _FACT_CHARACTERS)


class BoltAuthError(BoltError):
    """Bolt refused the credentials (HTTP 401), or the credentials do not allow the operation (HTTP 403).

    The request is not retried, except for polls of a run that the same credentials could read before.

    Attributes:
        status_code: 401 or 403.
        source: The block or the environment variables with the credentials.
        operation: The GraphQL operation that was refused.
    """

    status_code: int | None = None
    source: str | None = None
    operation: str | None = None
    guidance = "Create a key pair or token in the Paradime workspace settings and store it there."


class BoltRequestError(BoltError):
    """Bolt rejected the request, or the client rejected the input before it sent anything.

    Attributes:
        operation: The GraphQL operation.
        path: The path of the GraphQL error.
        graphql_errors: The `errors` of the reply, without secrets. Long texts are cut.
    """

    operation: str | None = None
    path: Sequence[str | int] | None = None
    graphql_errors: Sequence[Mapping[str, Any]] = ()
    status_code: int | None = None


class BoltUnsupported(BoltRequestError):
    """The workspace's backend does not know an operation, a field or an argument.

    Attributes:
        missing: The name of the operation, field or argument.
    """

    missing: str | None = None
    guidance = "Ask Paradime for a newer backend, or do not use this feature."


class BoltUnavailable(BoltError):
    """Bolt sent no usable answer: connection lost, timeout, HTTP 429 or 5xx, internal error, or no GraphQL reply.

    Attributes:
        operation: The GraphQL operation.
        path: The path of the GraphQL error.
        graphql_errors: The `errors` of the reply, without secrets. Long texts are cut.
        status_code: The HTTP status; None if there was no reply.
        may_have_acted: False only if Bolt cannot have processed the request.
        may_still_act: True if Bolt may process the request later: after a timeout, the server still has the request.
        was_answered: False if the connection was reset, or a gateway lost its connection to Bolt. Bolt may have
            processed the request.
        retry_after_seconds: The wait that Bolt asked for in `Retry-After`, in seconds.
    """

    operation: str | None = None
    path: Sequence[str | int] | None = None
    graphql_errors: Sequence[Mapping[str, Any]] = ()
    status_code: int | None = None
    may_have_acted: bool = True
    may_still_act: bool = False
    was_answered: bool = True
    retry_after_seconds: float | None = None
    guidance = "Check the network, the endpoint and Paradime's status page, then try again."


class BoltTriggerUnknown(BoltError):
    """The answer to a trigger was lost, and a search did not show whether the trigger started a run, or which run.

    Attributes:
        candidates: The ids of the runs that the trigger may have started.
    """

    candidates: Sequence[int] = ()
    guidance = (
        "The trigger was not sent again. Check the schedule's runs in Paradime before you start a new flow run. A "
        "retry of this flow run searches for the run, and triggers again only if it is certain that none has started."
    )

    def _details(self) -> list[str]:
        if not self.candidates:
            return ["No new run of the schedule was found."]
        return [f"Runs that it may have started: {', '.join(str(run_id) for run_id in self.candidates)}."]


class BoltAlreadyRunning(BoltError):
    """Bolt refused a trigger because the schedule is already running.

    `run_id` and `url` are those of the conflicting run, if it is known.
    """

    guidance = (
        "Set run_schedule's on_already_running to wait for that run, to attach to it, to skip or to replace it; or try "
        "again when it has ended."
    )


class BoltRunError(BoltError):
    """A run exists and did not succeed.

    Attributes:
        command: The command that failed, or that was running when the run ended.
        return_code: The command's return code; None if the command was running.
        log_tail: The end of the command's log.
        dbt_errors: dbt's messages about the nodes that failed, at most five.
        waited_seconds: The time limit of the wait, in seconds.
    """

    command: str | None = None
    return_code: int | None = None
    log_tail: str | None = None
    dbt_errors: Sequence[str] = ()
    waited_seconds: float | None = None

    @property
    def command_summary(self) -> str:
        """A sentence that says how the command ended; empty if no command is known."""
        if self.command is None:
            return ""
        ended = "was running" if self.return_code is None else f"ended with return code {self.return_code}"
        return f'Command "{one_line(self.command, _FACT_CHARACTERS)}" {ended}.'

    def _details(self) -> list[str]:
        lines = [self.command_summary] if self.command_summary else []
        said = [one_line(line, _DBT_ERROR_CHARACTERS) for line in self.dbt_errors]
        lines.extend(said)
        # In lists, Prefect shows only the beginning of a message. So dbt's messages come before the log.
        room = _LOG_TAIL_CHARACTERS - sum(map(len, said))
        if self.log_tail and room >= _SHORTEST_LOG_TAIL:
            lines.append(f"End of its log:\n{_last_lines(clean(self.log_tail), room)}")
        return lines


class BoltRunFailed(BoltRunError):
    """The run ended FAILED or ERROR."""

    guidance = "Fix the error shown in the log, then run the schedule again."


class BoltRunCanceled(BoltRunError):
    """The run ended CANCELED."""

    guidance = "Find out who cancelled it before you run the schedule again."


class BoltRunSkipped(BoltRunError):
    """The run ended SKIPPED: Bolt did not run its commands."""

    guidance = "Check in Paradime why Bolt skipped it: the schedule may be suspended, for instance."


class BoltRunTimedOut(BoltRunError):
    """The run did not end within `timeout_seconds`, counted from the trigger."""

    guidance = "Raise timeout_seconds if the schedule needs longer."


class BoltCancelUnconfirmed(BoltRunError):
    """Bolt refused a cancel, or the run did not end within `cancel_grace_seconds`."""

    guidance = "The run may still be running: check it in Paradime and cancel it there."


class BoltPipelineFailed(BoltError):
    """Not all steps of a pipeline succeeded.

    Attributes:
        steps: For each step that did not succeed, a sentence with the reason.
    """

    steps: Sequence[str] = ()
    guidance = "Fix the failed step and retry the flow run; steps that succeeded are skipped."

    def _details(self) -> list[str]:
        shown = [f"- {step}" for step in self.steps[:_STEPS_SHOWN]]
        rest = len(self.steps) - len(shown)
        return [*shown, f"- and {rest} more"] if rest > 0 else shown
