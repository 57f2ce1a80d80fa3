"""The errors about Bolt, one class for each thing that the caller can do next.

```
BoltError
├── BoltAuthError            fix the credentials
├── BoltRequestError         fix the request: Bolt rejected it
│   └── BoltUnsupported      this workspace's backend lacks the operation, field or argument
├── BoltUnavailable          try again later: Bolt sent no usable answer
├── BoltTriggerUnknown       check in Paradime: a Bolt run may have started, but it is unknown which run
├── BoltAlreadyRunning       wait for the running Bolt run, attach to it, or change `on_already_running`
├── BoltPipelineFailed       fix the failed steps; a retry skips the steps that succeeded
└── BoltRunError             a Bolt run exists and did not succeed
    ├── BoltRunFailed        read the failing command's log
    ├── BoltRunCanceled      somebody cancelled the Bolt run
    ├── BoltRunSkipped       Bolt skipped the Bolt run
    ├── BoltRunTimedOut      the Bolt run took longer than timeout_seconds
    └── BoltCancelUnconfirmed    check in Paradime: the Bolt run may still be running
```

The text of an error begins with the cause, since Prefect's pages cut long texts. Then come the details, what to do
next, and the facts. Each fact is an attribute, too. A pickled error keeps its facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks.text.error_text import FACT_CHARACTERS, error_text, log_end, one_line_text
from paradime_blocks.text.rendering import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STEPS_SHOWN = 10
_ONE_LINE_CHARACTERS = 500
_DBT_ERROR_CHARACTERS = 400


def _rebuild(cls: type[BoltError], message: str, facts: Mapping[str, Any]) -> BoltError:
    return cls(message, **facts)


class BoltError(Exception):
    """Base of every error that this package raises about Bolt.

    Args:
        message: A sentence that says what happened.
        guidance: A sentence that says what to do next. Most classes have a default sentence.
        schedule_name: The schedule that the error is about.
        run_id: The id of the Bolt run that the error is about.
        state: The last known state of the run in Bolt.
        url: The URL of the run's page in Paradime.
        facts: Further facts. Each fact becomes an attribute of the error.

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
        super().__init__(error_text(self._headline(), self._details(), self.guidance, self._facts))

    @property
    def cause(self) -> str:
        """What went wrong, without the name of the schedule and without the facts."""
        return self.message

    def in_one_line(self, limit: int = _ONE_LINE_CHARACTERS) -> str:
        """Return the error without its details, as short as the state of a flow run should be.

        Args:
            limit: The largest length, in characters.
        """
        return one_line_text(self._headline(), self.guidance, self._facts, limit)

    def _headline(self) -> str:
        return self.cause

    def _details(self) -> list[str]:
        """Return the lines between the cause and what to do next. Subclasses override this method."""
        return []

    def with_facts(self, *, message: str | None = None, **facts: Any) -> BoltError:
        """Return a copy of the error with more facts, for a caller that knows the schedule or the run.

        A fact that the error already has does not change.

        Args:
            message: The message of the copy; None keeps the message of this error.
            facts: Further facts.
        """
        known = {name: value for name, value in self._facts.items() if value is not None}
        copy = type(self)(message or self.message, **{**facts, **known})
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell pickle to create the error from its message and its facts: Prefect pickles exceptions.

        By default, pickle would use the complete message, which already contains the facts.
        """
        return _rebuild, (type(self), self.message, dict(self._facts))


class BoltAuthError(BoltError):
    """Bolt refused the credentials (HTTP 401), or the credentials do not allow the operation (HTTP 403).

    The client does not send the request again. Only polls of a Bolt run continue for a minute, if the same credentials
    could read the run before.

    Attributes:
        status_code: 401 or 403.
        source: The block, or the environment variables, that contain the credentials.
        operation: The GraphQL operation that was refused.
    """

    status_code: int | None = None
    source: str | None = None
    operation: str | None = None
    guidance = "Create a new key pair or token in the Paradime workspace settings and replace the stored one."


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
        may_have_acted: Whether Bolt may have processed the request. False if Bolt certainly has not processed it.
        may_still_act: Whether Bolt may process the request later: after a timeout, the server still has the request.
        was_answered: True if Bolt, or a gateway before it, sent an answer about this request. False if the connection
            was reset, or a gateway lost its connection to Bolt. Then Bolt may have processed the request.
        retry_after_seconds: The wait that Bolt asked for in the header `Retry-After`, in seconds.
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
    """The answer to a trigger was lost, and a search did not show which run the trigger started, if any.

    Attributes:
        candidates: The ids of the runs that the trigger may have started.
    """

    candidates: Sequence[int] = ()
    guidance = (
        "The trigger was not sent again. Check the schedule's runs in Paradime before you start a new flow run. A "
        "retry of this flow run searches for the Bolt run. It triggers again only if certainly no Bolt run has started."
    )

    def _headline(self) -> str:
        runs = ", ".join(str(run_id) for run_id in self.candidates)
        found = (
            f"Runs that the trigger may have started: {runs}"
            if runs
            else "No new run of the schedule was found"
        )
        return f"{self.message} {found}."


class BoltAlreadyRunning(BoltError):
    """Bolt refused a trigger because the schedule is already running.

    `run_id` and `url` belong to the run that is already running, if that run is known.
    """

    guidance = (
        "Set run_schedule's on_already_running to wait for the running Bolt run, to attach to it, to replace it, or to "
        "skip the trigger. Or try again when the running Bolt run has ended."
    )


class BoltRunError(BoltError):
    """A Bolt run exists and did not succeed.

    Attributes:
        command: The command that failed, or that was running when the run ended.
        return_code: The command's return code; None if the command was still running.
        log_tail: The end of the command's log.
        dbt_errors: dbt's messages about the nodes that failed, at most five.
        waited_seconds: The time limit of the wait, in seconds.
    """

    command: str | None = None
    return_code: int | None = None
    log_tail: str | None = None
    dbt_errors: Sequence[str] = ()
    waited_seconds: float | None = None
    _ended = ""

    @property
    def command_summary(self) -> str:
        """A sentence that says how the command ended; an empty text if no command is known."""
        if self.command is None:
            return ""
        ended = "was running" if self.return_code is None else f"ended with return code {self.return_code}"
        return f'Command "{one_line(self.command, FACT_CHARACTERS)}" {ended}.'

    @property
    def cause(self) -> str:
        """What went wrong, and how the command ended."""
        return f"{self.message} {self.command_summary}".rstrip()

    def _headline(self) -> str:
        if self.schedule_name:
            return f"Schedule '{one_line(self.schedule_name, FACT_CHARACTERS)}'{self._ended}: {self.cause}"
        return f"Bolt run {self.run_id}{self._ended}: {self.cause}" if self.run_id else self.cause

    def _details(self) -> list[str]:
        said = [one_line(line, _DBT_ERROR_CHARACTERS) for line in self.dbt_errors]
        lines = [line for line in (self.command_summary, *said) if line not in self.cause]
        return [*lines, *log_end(self.log_tail, said)]


class BoltRunFailed(BoltRunError):
    """The Bolt run ended in state FAILED or ERROR."""

    _ended = " failed"
    guidance = "Fix the error shown in the log, then run the schedule again."

    @property
    def cause(self) -> str:
        """The command that failed with dbt's first error, or else with its return code."""
        if self.dbt_errors and self.command:
            said = one_line(self.dbt_errors[0], _DBT_ERROR_CHARACTERS)
            return f"{one_line(self.command, FACT_CHARACTERS)}: {said}"
        return self.command_summary or self.message


class BoltRunCanceled(BoltRunError):
    """The Bolt run ended in state CANCELED."""

    guidance = "Find out who cancelled the Bolt run before you run the schedule again."


class BoltRunSkipped(BoltRunError):
    """The Bolt run ended in state SKIPPED: Bolt did not execute its commands."""

    guidance = "Check in Paradime why Bolt skipped the run: for instance, the schedule may be suspended."


class BoltRunTimedOut(BoltRunError):
    """The Bolt run did not end within `timeout_seconds`, counted from its trigger."""

    guidance = "Raise timeout_seconds if the schedule needs longer."


class BoltCancelUnconfirmed(BoltRunError):
    """Bolt refused to cancel a run, or the run did not end within `cancel_grace_seconds` after the cancel."""

    guidance = "Check the run in Paradime and cancel it there."


class BoltPipelineFailed(BoltError):
    """Not all steps of a pipeline succeeded.

    Attributes:
        steps: For each step that did not succeed, a sentence with the reason.
    """

    steps: Sequence[str] = ()
    guidance = "Fix the failed steps and retry the flow run; steps that succeeded are skipped."

    def _details(self) -> list[str]:
        shown = [f"- {step}" for step in self.steps[:_STEPS_SHOWN]]
        rest = len(self.steps) - len(shown)
        return [*shown, f"- and {rest} more"] if rest > 0 else shown
