"""The names of our tag and labels on a flow run. After a rename, the labels of older runs are no longer found."""

from typing import Final

# On each flow run that triggers. Prefect cannot search by labels, so the sweeper finds the flow runs by this tag.
FLOW_RUN_TAG: Final = "paradime-bolt"

# The Bolt runs that a flow run owns, by the intent's key (`paradime_flows.ledger.entry`).
LEDGER_LABEL_PREFIX: Final = "paradime.bolt."
# For people: the schedule, and the Bolt run.
SCHEDULE_LABEL: Final = "paradime.schedule"
RUN_ID_LABEL: Final = "paradime.run_id"
# The execution that drives the flow run, and when it began (`paradime_flows.ledger.store`).
EXECUTION_LABEL: Final = "paradime.execution"
EXECUTION_BEGAN_LABEL: Final = "paradime.execution.began"
# The tasks that called it (`paradime_flows.ledger.callers`).
CALLER_LABEL: Final = "paradime.caller"
# The last heartbeat of its process (`paradime_flows.supervision.heartbeat`).
ALIVE_LABEL: Final = "paradime.alive"
# A pipeline's steps, by name (`paradime_flows.pipelines`).
STEP_LABEL_PREFIX: Final = "paradime.step."
# The position of the live logs, and the progress artifact, by Bolt run (`paradime_flows.live`).
LOGS_LABEL_PREFIX: Final = "paradime.logs."
PROGRESS_LABEL_PREFIX: Final = "paradime.progress."
