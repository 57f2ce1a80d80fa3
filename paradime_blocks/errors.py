"""What can go wrong between Prefect and Bolt, told apart by what the caller does next.

```
BoltError
├── BoltAuthError            mend the credentials
├── BoltRequestError         mend the request: Bolt understood it and said no
│   └── BoltUnsupported      this workspace's backend lacks the operation, field or argument
├── BoltUnavailable          try again later: no usable answer came
├── BoltTriggerUnknown       look in Paradime: a run may have started, and nobody can say which
├── BoltAlreadyRunning       wait, attach, or choose another `on_already_running`
├── BoltPipelineFailed       see which steps did not succeed; a rerun leaves out those that did
└── BoltRunError             there is a run, and it did not end as wished
    ├── BoltRunFailed        read the failing command's log
    ├── BoltRunCanceled      somebody ended it
    ├── BoltRunSkipped       Bolt chose not to run it
    ├── BoltRunTimedOut      our own time limit ended it
    └── BoltCancelUnconfirmed    look in Paradime: the run may still be going
```

Every error carries its facts as attributes, says them in its message, and survives pickling with them.
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
        message: One sentence: what happened.
        guidance: One sentence: what to do next. Each class has a default.
        schedule_name: The schedule concerned.
        run_id: The Bolt run concerned.
        state: The state of the run in Bolt when last seen.
        url: The run's page in Paradime.
        facts: Further facts, each kept as an attribute.

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
        told = f"{self.message} ({', '.join(facts)})" if facts else self.message
        parts = [told, *self._details()]
        if self.guidance:
            parts.append(self.guidance)
        return "\n".join(parts) if len(parts) > 2 else " ".join(parts)  # noqa: PLR2004

    def _details(self) -> list[str]:
        """Lines between the facts and the guidance; classes with more to tell override it."""
        return []

    def with_facts(self, *, message: str | None = None, **facts: Any) -> BoltError:
        """Return a copy that knows more, for a caller that knows the schedule or the run.

        Facts that the error already has are kept.

        Args:
            message: What happened, as the caller sees it; unchanged by default.
            facts: Further facts.
        """
        known = {name: value for name, value in self._facts.items() if value is not None}
        copy = type(self)(message or self.message, **{**facts, **known})
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Prefect pickles exceptions; rebuild from the facts, not from the finished message."""
        return _rebuild, (type(self), self.message, dict(self._facts))


def _last_lines(text: str, characters: int) -> str:
    """Return the end of a text, from the beginning of a line if there is one."""
    end = text[-characters:]
    first, newline, rest = end.partition("\n")
    return rest if len(text) > characters and newline and len(first) < characters // 2 else end


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = ".".join(str(part) for part in value)
    return one_line(str(getattr(value, "value", value)), _FACT_CHARACTERS)


class BoltAuthError(BoltError):
    """Bolt refused the credentials (HTTP 401) or what they may do (HTTP 403).

    It is never retried, but for looks at a run that has been seen with the same credentials.

    Attributes:
        status_code: 401 or 403.
        source: The block or the variables that hold the credentials.
        operation: The GraphQL operation that was refused.
    """

    status_code: int | None = None
    source: str | None = None
    operation: str | None = None
    guidance = "Create a key pair or token in the Paradime workspace settings and store it there."


class BoltRequestError(BoltError):
    """Bolt understood the request and refused it, or the input was refused before anything was sent.

    Attributes:
        operation: The GraphQL operation.
        path: Where in the reply the GraphQL error points.
        graphql_errors: The `errors` of the reply, without secrets, long texts cut.
    """

    operation: str | None = None
    path: Sequence[str | int] | None = None
    graphql_errors: Sequence[Mapping[str, Any]] = ()
    status_code: int | None = None


class BoltUnsupported(BoltRequestError):
    """The workspace's backend does not know an operation, a field or an argument.

    Attributes:
        missing: Its name.
    """

    missing: str | None = None
    guidance = "Ask Paradime for a newer backend, or do without this feature."


class BoltUnavailable(BoltError):
    """No usable answer came: connection lost, timed out, HTTP 429 or 5xx, an internal error, or no GraphQL reply.

    Attributes:
        operation: The GraphQL operation.
        path: Where in the reply the GraphQL error points.
        graphql_errors: The `errors` of the reply, without secrets, long texts cut.
        status_code: The HTTP status, if there was a reply.
        may_have_acted: False only where Bolt cannot have acted on the request.
        may_still_act: True where Bolt may yet act on it (a timeout leaves the request with the server).
        was_answered: False where the connection was cut, or a gateway lost its own: no telling how far Bolt had come.
        retry_after_seconds: How long Bolt asked us to wait, from `Retry-After`.
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
    """The answer to a trigger was lost, and looking did not tell whether or which run it started.

    Attributes:
        candidates: Ids of the runs that may be ours.
    """

    candidates: Sequence[int] = ()
    guidance = (
        "Nothing was sent a second time. Look at the schedule's runs in Paradime before you trigger it in a new flow "
        "run. A retry of this one looks for the run, and triggers anew only when it is certain that none has started."
    )

    def _details(self) -> list[str]:
        if not self.candidates:
            return ["No new run of the schedule was seen."]
        return [f"Runs that may be ours: {', '.join(str(run_id) for run_id in self.candidates)}."]


class BoltAlreadyRunning(BoltError):
    """Bolt refused a trigger because the schedule is running already.

    `run_id` and `url` name the run that is in the way, where it is known.
    """

    guidance = (
        "Let run_schedule's on_already_running wait for that run, attach to it, skip or replace it; or try again when "
        "it has ended."
    )


class BoltRunError(BoltError):
    """A run exists and did not end as wished.

    Attributes:
        command: The command that ended the run badly, or that was running at its end, as Bolt shows it.
        return_code: Its return code; None if it was running.
        log_tail: The end of its log.
        dbt_errors: What dbt itself says of the nodes that failed, at most five.
        waited_seconds: How long the run was waited for.
    """

    command: str | None = None
    return_code: int | None = None
    log_tail: str | None = None
    dbt_errors: Sequence[str] = ()
    waited_seconds: float | None = None

    @property
    def command_summary(self) -> str:
        """What became of the command, as a sentence; empty if none is known."""
        if self.command is None:
            return ""
        ended = "was running" if self.return_code is None else f"ended with return code {self.return_code}"
        return f'Command "{one_line(self.command, _FACT_CHARACTERS)}" {ended}.'

    def _details(self) -> list[str]:
        lines = [self.command_summary] if self.command_summary else []
        said = [one_line(line, _DBT_ERROR_CHARACTERS) for line in self.dbt_errors]
        lines.extend(said)
        # Prefect shows the message as the state's, in lists, too: what dbt says goes before the log.
        room = _LOG_TAIL_CHARACTERS - sum(map(len, said))
        if self.log_tail and room >= _SHORTEST_LOG_TAIL:
            lines.append(f"End of its log:\n{_last_lines(clean(self.log_tail), room)}")
        return lines


class BoltRunFailed(BoltRunError):
    """The run ended FAILED or ERROR."""

    guidance = "Mend what the log says, then run the schedule again."


class BoltRunCanceled(BoltRunError):
    """The run ended CANCELED."""

    guidance = "Find out who canceled it before you run it again."


class BoltRunSkipped(BoltRunError):
    """The run ended SKIPPED: Bolt did not run its commands."""

    guidance = "See in Paradime why Bolt skipped it, for instance a suspended schedule."


class BoltRunTimedOut(BoltRunError):
    """The run did not end within `timeout_seconds`, counted from the trigger."""

    guidance = "Raise timeout_seconds if the schedule needs longer."


class BoltCancelUnconfirmed(BoltRunError):
    """Bolt refused a cancel, or did not carry it out within `cancel_grace_seconds`."""

    guidance = "The run may still be going: look at it in Paradime and cancel it there."


class BoltPipelineFailed(BoltError):
    """Not all steps of a pipeline succeeded.

    Attributes:
        steps: Each step that did not, with its reason, as a sentence.
    """

    steps: Sequence[str] = ()
    guidance = "Mend what failed and retry the flow run: steps that succeeded are not run again."

    def _details(self) -> list[str]:
        shown = [f"- {step}" for step in self.steps[:_STEPS_SHOWN]]
        rest = len(self.steps) - len(shown)
        return [*shown, f"- and {rest} more"] if rest > 0 else shown
