"""Does what one request asks for, from the trigger to the result. Flows, tasks and pipelines import these names."""

from paradime_flows.runner.conflict import Skipped
from paradime_flows.runner.lifecycle import RunLifecycle
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.runner.resume import can_be_resumed, cancel_leftover, resuming
from paradime_flows.runner.run import as_result, cancelled, drive, stopped, this_flow_run_id
from paradime_flows.runner.takeover import stop_if_replaced, write_final_state

__all__ = [
    "RunLifecycle",
    "RunPolicies",
    "Skipped",
    "as_result",
    "can_be_resumed",
    "cancel_leftover",
    "cancelled",
    "drive",
    "resuming",
    "stop_if_replaced",
    "stopped",
    "this_flow_run_id",
    "write_final_state",
]
