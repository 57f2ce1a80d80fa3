"""The flow `cancel_run`: cancels any Bolt run and waits until it has ended."""

from __future__ import annotations

from prefect.states import Completed

from paradime_blocks import BoltRun, BoltRunResult, BoltRunState
from paradime_blocks.options import GraceSeconds, NonEmpty
from paradime_flows.parameters import CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    ArtifactWriter,
    async_form,
    bolt_flow,
    current_flow_run_id,
    find_schedule,
    resolve_credentials,
    run_logger,
)
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord
from paradime_flows.runner import as_result


@bolt_flow(
    name="cancel-run",
    description="Cancels a Paradime Bolt run and waits until it has ended.",
    flow_run_name="cancel-{run_id}",
)
async def cancel_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    cancel_grace_seconds: GraceSeconds | None = None,
) -> BoltRunResult:
    """Cancel a Bolt run, wait until it has ended, and archive its logs and files.

    If the Bolt run has already ended, this flow run does not fail: its state is then AlreadyEnded. If another flow
    run waits for the Bolt run, it notices the cancel by itself.

    Args:
        run_id: The id of the run, as in its address in Paradime.
        credentials: A saved Paradime Credentials block or its name, never typed values. Empty: PARADIME_* variables.
        schedule_name: The run's schedule, for the artifacts. Bolt does not say which schedule a run belongs to.
            Empty: the flow searches for the schedule after the cancel.
        cancel_grace_seconds: How long the run may take to end after the cancel, in seconds. Empty: 60.

    Returns:
        The result of the run, with its final state.

    Raises:
        BoltCancelUnconfirmed: Bolt refused the cancel, or the run did not end in time.
        BoltError: Another error; its class says which.

    Example:
        ```python
        from paradime_flows.cancel_run import cancel_run

        print(cancel_run(76035, "production").state)
        ```
    """
    found = await resolve_credentials(credentials)
    run = BoltRun(run_id=run_id, credentials=found, schedule_name=schedule_name)
    before = await run.astate()
    state = before if before.is_terminal else await run.acancel(cancel_grace_seconds)
    outcome = "Cancelled by the flow cancel-run."
    if state != BoltRunState.CANCELED or before.is_terminal:
        outcome = f"It had ended as {state} before it could be cancelled."
    run_logger().info("Bolt run %s: %s", run_id, outcome)
    async with found.get_client() as client:
        schedule_name = await find_schedule(client, run_id, schedule_name)
    record = RunRecord(schedule_name=schedule_name, run_id=run_id, state=state, outcome=outcome)
    archive = Archive(found, ArtifactWriter(flow_run_id=current_flow_run_id()), record)
    await archive.run()
    result = BoltRunResult.of(
        run_id, record.status, schedule_name=schedule_name, state=record.state, resources=archive.resources
    )
    result = archive.complete(result)
    if before.is_terminal:
        return as_result(Completed(name="AlreadyEnded", message=outcome, data=result), BoltRunResult)
    return result


acancel_run = async_form(cancel_run)
