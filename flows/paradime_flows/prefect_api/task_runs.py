"""Shows a piece of a flow's work as a task run, in the timeline of the flow run.

The flow's own code does the work. The task run only waits: it begins when the work begins, and ends when the work ends.
So a cancel, a signal or an error reaches the work in the same way as without a task run. Prefect sends the states of
task runs as events, so a task run costs no request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext, TagsContext, TaskRunContext
from prefect.logging.loggers import task_run_logger
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.transactions import Transaction
from prefect.utilities.annotations import quote

from paradime_blocks import BoltError
from paradime_blocks.text import one_line
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State, TaskRun

_PAGE: Final = 200
_MESSAGE_CHARACTERS: Final = 500
_log_here: ContextVar[ShownTaskRun | None] = ContextVar("log_here", default=None)


@task(
    name="bolt-work",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    # If a task without retries returns Failed, Prefect logs "NoneType: None". So this task has a retry, which the
    # condition below never allows.
    retries=1,
    retry_condition_fn=lambda *_: False,
    log_prints=False,
)
async def show_work(name: str, shown: ShownTaskRun) -> State[None]:
    """Wait until a piece of work has ended, and return the state in which the work has ended.

    Args:
        name: The name of the task run.
        shown: The handle of this task run. With the handle, the code that does the work begins and ends the task run.
    """
    del name
    context = TaskRunContext.get()
    assert context is not None  # noqa: S101 - Prefect calls a task's function in this context
    shown.began.set_result(context.task_run)
    return await shown.ended


class ShownTaskRun:
    """The handle of a task run that shows a piece of work.

    Outside of flow runs, the handle has no task run. The work continues even if Prefect cannot begin the task run.

    Attributes:
        began: A future of Prefect's task run. The future is done when the task run has begun.
        ended: A future of the final state. The future is done when the work has ended.
        outcome: The state in which the task run ends if the work raises no error; by default Completed.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[TaskRun] = loop.create_future()
        self.ended: asyncio.Future[State[None]] = loop.create_future()
        self.outcome: State[Any] | None = None
        self._task: asyncio.Task[Any] | None = None

    @classmethod
    async def begin(cls, name: str) -> ShownTaskRun:
        """Begin a task run.

        Args:
            name: The name of the task run, without secrets.
        """
        shown = cls()
        if FlowRunContext.get() is None:
            return shown
        with _on_its_own():
            work: Any = show_work  # Prefect's type hints are wrong for an async task that returns a state
            shown._task = asyncio.create_task(work(name, quote(shown), return_state=True))
        # If the flow run is suspended, Prefect raises an error in the task. The flow's own code notices the suspension.
        shown._task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait(
                {shown.began, shown._task},
                timeout=times().task_run_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        except BaseException:
            await shown.end(Cancelled())
            raise
        return shown

    @property
    def id(self) -> UUID | None:
        """The id of the task run; None if the task run has not begun."""
        return self.began.result().id if self.began.done() else None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger] | None:
        """The logger of the task run; None if the task run has not begun."""
        return task_run_logger(self.began.result(), show_work) if self.began.done() else None

    async def end(self, state: State[Any]) -> None:
        """End the task run. A second call changes nothing.

        Args:
            state: The final state.
        """
        if self.ended.done():
            return
        self.ended.set_result(state)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=times().task_run_seconds)


@contextmanager
def _on_its_own() -> Iterator[None]:
    """Begin a task run without the tags and the transaction of the code around it.

    Tags would cost a request, and a tag may have a concurrency limit. A transaction would be rolled back if a task
    fails. The task runs in the transaction would then no longer show how the work ended.
    """
    transaction: ContextVar[Transaction | None] = Transaction.__var__  # type: ignore[assignment]
    token = transaction.set(None)
    try:
        with TagsContext(current_tags=set()):
            yield
    finally:
        transaction.reset(token)


@asynccontextmanager
async def as_task_run(name: str, *, stops: tuple[type[Exception], ...] = ()) -> AsyncIterator[ShownTaskRun]:
    """Show the work of the `with` block as a task run.

    The task run ends in the state `outcome`, if the work has set one. Otherwise the end of the work decides. If there
    was no error, the task run is Completed. After an error, the task run is Failed, with the message of the error. If
    the work was stopped, the task run is Cancelled.

    Args:
        name: The name of the task run, without secrets.
        stops: Exception classes. An exception of these classes means that the work was stopped.
    """
    shown = await ShownTaskRun.begin(name)
    token = _log_here.set(shown)
    try:
        yield shown
    except BaseException as error:
        await shown.end(shown.outcome or _state_after(error, stops))
        raise
    else:
        await shown.end(shown.outcome or Completed())
    finally:
        _log_here.reset(token)


def logger_of_work() -> logging.LoggerAdapter[logging.Logger] | None:
    """Return the logger of the task run that shows the current work; None if no task run shows the work."""
    shown = _log_here.get()
    return None if shown is None else shown.logger


def _state_after(error: BaseException, stops: tuple[type[Exception], ...]) -> State[Any]:
    told = error.in_one_line() if isinstance(error, BoltError) else one_line(str(error), _MESSAGE_CHARACTERS)
    message = told or "The work was interrupted."
    if not isinstance(error, Exception) or isinstance(error, stops):
        return Cancelled(message=message)
    return Failed(message=message)


async def end_left_task_runs(
    client: PrefectClient, flow_run_id: UUID, why: str, *, begun_before: datetime | None = None
) -> None:
    """End the task runs of a flow run whose process has died before it could end them.

    This function ends only the task runs that show work (`show_work`).

    Args:
        client: An open client.
        flow_run_id: The flow run.
        why: Why the task runs end, as a sentence.
        begun_before: Only task runs that began before this time are ended. None means all task runs.
    """
    unfinished = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    found = await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unfinished)),
        limit=_PAGE,
    )
    for task_run in found:
        began = task_run.start_time or task_run.expected_start_time
        is_left = begun_before is None or (began is not None and began < begun_before)
        if is_left and task_run.task_key.startswith(show_work.fn.__qualname__):
            await client.set_task_run_state(task_run.id, Crashed(message=why), force=True)
