"""Most access to Prefect: the flow run's context, flow runs, labels, artifacts, and the times. For other packages."""

from paradime_flows.prefect_api.artifacts import (
    ArtifactWriter,
    artifact_key,
    artifact_url,
    flow_run_url,
    short_hash,
)
from paradime_flows.prefect_api.context import (
    current_execution,
    current_execution_began_at,
    current_flow_run_id,
    current_task_run_id,
    new_prefect_clients,
    run_logger,
)
from paradime_flows.prefect_api.dispatch import DispatchedFlow, async_form, bolt_flow, bolt_task
from paradime_flows.prefect_api.flow_runs import (
    every_flow_run,
    has_its_own_process,
    is_suspended,
    lineage,
    set_final_state,
    state_types,
    subflows_of,
)
from paradime_flows.prefect_api.inputs import (
    bolt_client,
    find_schedule,
    resolve_credentials,
    resolve_schedule,
    schedule_of_run,
)
from paradime_flows.prefect_api.labels import (
    ALIVE_LABEL,
    CALLER_LABEL,
    EXECUTION_BEGAN_LABEL,
    EXECUTION_LABEL,
    FLOW_RUN_TAG,
    LEDGER_LABEL_PREFIX,
    LOGS_LABEL_PREFIX,
    PROGRESS_LABEL_PREFIX,
    RUN_ID_LABEL,
    SCHEDULE_LABEL,
    STEP_LABEL_PREFIX,
)
from paradime_flows.prefect_api.signals import SwallowedSignals, count_signals, resend_swallowed_signals
from paradime_flows.prefect_api.signatures import filled
from paradime_flows.prefect_api.supervisor import Supervised, the_supervisor
from paradime_flows.time_limits import times

__all__ = [
    "ALIVE_LABEL",
    "CALLER_LABEL",
    "EXECUTION_BEGAN_LABEL",
    "EXECUTION_LABEL",
    "FLOW_RUN_TAG",
    "LEDGER_LABEL_PREFIX",
    "LOGS_LABEL_PREFIX",
    "PROGRESS_LABEL_PREFIX",
    "RUN_ID_LABEL",
    "SCHEDULE_LABEL",
    "STEP_LABEL_PREFIX",
    "ArtifactWriter",
    "DispatchedFlow",
    "Supervised",
    "SwallowedSignals",
    "artifact_key",
    "artifact_url",
    "async_form",
    "bolt_client",
    "bolt_flow",
    "bolt_task",
    "count_signals",
    "current_execution",
    "current_execution_began_at",
    "current_flow_run_id",
    "current_task_run_id",
    "every_flow_run",
    "filled",
    "find_schedule",
    "flow_run_url",
    "has_its_own_process",
    "is_suspended",
    "lineage",
    "new_prefect_clients",
    "resend_swallowed_signals",
    "resolve_credentials",
    "resolve_schedule",
    "run_logger",
    "schedule_of_run",
    "set_final_state",
    "short_hash",
    "state_types",
    "subflows_of",
    "the_supervisor",
    "times",
]
