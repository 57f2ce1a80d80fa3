"""Does what one request asks for, from the trigger to the result. Flows, tasks and pipelines import these names."""

from paradime_flows.runner.begin import begin_execution, write_final_state
from paradime_flows.runner.conflict import Skipped
from paradime_flows.runner.lifecycle import RunLifecycle, RunPolicies
from paradime_flows.runner.run import as_result, drive, obtain, stopped, this_flow_run_id
