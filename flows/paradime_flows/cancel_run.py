"""The flow `cancel_run`: cancels any Bolt run and waits until the Bolt run has ended."""

from __future__ import annotations

from prefect.states import Completed

from paradime_blocks import BoltRun, BoltRunResult, BoltRunState
from paradime_blocks.options import GraceSeconds, NonEmpty
from paradime_flows.parameters import CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    ArtifactWriter,
    as_task_run,
    async_form,
    bolt_flow,
    current_flow_run_id,
    find_schedule,
    resolve_credentials,
    run_logger,
    unless_named,
)
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord
from paradime_flows.runner import as_result


@bolt_flow(
    name="cancel-run",
    description="Cancels a Paradime Bolt run and waits until the Bolt run has ended.",
    flow_run_name=unless_named(lambda given: f"cancel-{given['run_id']}"),
)
async def cancel_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    cancel_grace_seconds: GraceSeconds | None = None,
) -> BoltRunResult:
    """Cancel a Bolt run, wait until the Bolt run has ended, and archive its summary, its dbt results and its logs.

    If the Bolt run had already ended, the flow run still succeeds, and its state in Prefect is named AlreadyEnded. If
    another flow run waits for the same Bolt run, that flow run notices the cancel by itself.

    Args:
        run_id: The id of the Bolt run: only the number, such as 76002. The URL of the run's page in Paradime contains
            it.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.
        schedule_name: The name of the Bolt run's schedule. The artifact keys contain this name. Bolt does not return
            the schedule of a Bolt run. If empty, the flow searches for the schedule after the cancel.
        cancel_grace_seconds: How long the flow waits for the Bolt run to end after the cancel, in seconds. If empty,
            the flow waits for 60 seconds.

    Returns:
        The result of the Bolt run, with the final state of the Bolt run.

    Raises:
        BoltCancelUnconfirmed: Bolt refused to cancel the Bolt run, or the Bolt run did not end within
            `cancel_grace_seconds`.
        BoltError: Another error occurred. The subclass of `BoltError` says which error.

    Example:
        ```python
        from paradime_flows.cancel_run import cancel_run

        print(cancel_run(76035, "production").state)
        ```
    """
    found = await resolve_credentials(credentials)
    run = BoltRun(run_id=run_id, credentials=found, schedule_name=schedule_name)
    before = await run.astate()
    async with as_task_run(f"cancel {run_id}"):
        state = before if before.is_terminal else await run.acancel(cancel_grace_seconds)
    outcome = "The flow cancel-run cancelled this Bolt run."
    if state != BoltRunState.CANCELED or before.is_terminal:
        outcome = f"The Bolt run had ended in the state {state} before the flow could cancel the Bolt run."
    run_logger().info("Bolt run %s: %s", run_id, outcome)
    async with found.get_client() as client:
        schedule_name = await find_schedule(client, run_id, schedule_name)
    record = RunRecord(schedule_name=schedule_name, run_id=run_id, state=state, outcome=outcome)
    archive = Archive(found, ArtifactWriter(flow_run_id=current_flow_run_id()), record)
    async with as_task_run("archive"):
        await archive.run()
    result = BoltRunResult.of(
        run_id, record.status, schedule_name=schedule_name, state=record.state, resources=archive.resources
    )
    result = archive.complete(result)
    if before.is_terminal:
        return as_result(Completed(name="AlreadyEnded", message=outcome, data=result), BoltRunResult)
    return result


acancel_run = async_form(cancel_run)
