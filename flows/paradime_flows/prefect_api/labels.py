"""The names of our tag and labels on a flow run. If you rename one, it is no longer found on older flow runs."""

from typing import Final

# Each flow run that triggers a Bolt run has this tag. Prefect cannot search for labels, so the sweeper searches for
# the tag.
FLOW_RUN_TAG: Final = "paradime-bolt"

# One label for each Bolt run that the flow run owns. The name ends with the intent's key
# (`paradime_flows.ledger.record`).
LEDGER_LABEL_PREFIX: Final = "paradime.bolt."
# These labels are for people: the schedule, and the id of the Bolt run.
SCHEDULE_LABEL: Final = "paradime.schedule"
RUN_ID_LABEL: Final = "paradime.run_id"
# The execution that holds the lease on the flow run, and the time at which it began (`paradime_flows.ledger.store`).
EXECUTION_LABEL: Final = "paradime.execution"
EXECUTION_BEGAN_LABEL: Final = "paradime.execution.began"
# The tasks that called the flow run (`paradime_flows.ledger.callers`).
CALLER_LABEL: Final = "paradime.caller"
# The last heartbeat of the flow run's process (`paradime_flows.supervision.heartbeat`).
ALIVE_LABEL: Final = "paradime.alive"
# One label for each step of a pipeline. The label ends with the step's name (`paradime_flows.pipelines`).
STEP_LABEL_PREFIX: Final = "paradime.step."
# For each Bolt run: the position of its live logs, and its progress artifact. The labels end with the id of the Bolt
# run (`paradime_flows.live`).
LOGS_LABEL_PREFIX: Final = "paradime.logs."
PROGRESS_LABEL_PREFIX: Final = "paradime.progress."
