"""How the other packages use Prefect: the context of a flow run, flow runs, labels, artifacts, and time limits."""

from paradime_flows.prefect_api.artifacts import (
    ArtifactWriter,
    artifact_key,
    artifact_url,
    flow_run_url,
    short_hash,
)
from paradime_flows.prefect_api.client import prefect_client
from paradime_flows.prefect_api.context import (
    current_execution,
    current_execution_began_at,
    current_flow_run_id,
    current_task_run_id,
    flow_run_at_begin,
    logger_for,
    run_logger,
)
from paradime_flows.prefect_api.dispatch import DispatchedFlow, async_form, bolt_flow, bolt_task
from paradime_flows.prefect_api.flow_runs import (
    every_flow_run,
    family_of,
    has_its_own_process,
    is_first_attempt,
    is_over,
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
    FLOW_RUN_TAG,
    LOGS_LABEL_PREFIX,
    STEP_LABEL_PREFIX,
    WATCH_VARIABLE_PREFIX,
    schedule_tag,
)
from paradime_flows.prefect_api.observer import Observed, observing, the_observer
from paradime_flows.prefect_api.run_names import unless_named
from paradime_flows.prefect_api.shared_reads import read_flow_run, read_flow_runs
from paradime_flows.prefect_api.signals import count_signals, is_rescheduled
from paradime_flows.prefect_api.signatures import filled
from paradime_flows.prefect_api.slots import SlotTaken, schedule_slot
from paradime_flows.prefect_api.supervisor import Supervised, the_supervisor
from paradime_flows.prefect_api.task_runs import ShownTaskRun, as_task_run, end_left_task_runs
from paradime_flows.time_limits import times

__all__ = [
    "FLOW_RUN_TAG",
    "LOGS_LABEL_PREFIX",
    "STEP_LABEL_PREFIX",
    "WATCH_VARIABLE_PREFIX",
    "ArtifactWriter",
    "DispatchedFlow",
    "Observed",
    "ShownTaskRun",
    "SlotTaken",
    "Supervised",
    "artifact_key",
    "artifact_url",
    "as_task_run",
    "async_form",
    "bolt_client",
    "bolt_flow",
    "bolt_task",
    "count_signals",
    "current_execution",
    "current_execution_began_at",
    "current_flow_run_id",
    "current_task_run_id",
    "end_left_task_runs",
    "every_flow_run",
    "family_of",
    "filled",
    "find_schedule",
    "flow_run_at_begin",
    "flow_run_url",
    "has_its_own_process",
    "is_first_attempt",
    "is_over",
    "is_rescheduled",
    "is_suspended",
    "lineage",
    "logger_for",
    "observing",
    "prefect_client",
    "read_flow_run",
    "read_flow_runs",
    "resolve_credentials",
    "resolve_schedule",
    "run_logger",
    "schedule_of_run",
    "schedule_slot",
    "schedule_tag",
    "set_final_state",
    "short_hash",
    "state_types",
    "subflows_of",
    "the_observer",
    "the_supervisor",
    "times",
    "unless_named",
]
