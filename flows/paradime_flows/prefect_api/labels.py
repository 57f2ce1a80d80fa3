"""The names of what we write on a flow run: one tag, and labels. Renaming one loses what older runs have written."""

from typing import Final

# A flow run that triggers has it: labels can be read by flow run only, and the sweeper must find it.
FLOW_RUN_TAG: Final = "paradime-bolt"

# What a flow run answers for, by the intent's key (`paradime_flows.ledger.entry`).
LEDGER_LABEL_PREFIX: Final = "paradime.bolt."
# For people: the schedule, and the Bolt run.
SCHEDULE_LABEL: Final = "paradime.schedule"
RUN_ID_LABEL: Final = "paradime.run_id"
# Which execution drives the flow run, and when it began (`paradime_flows.ledger.store`).
EXECUTION_LABEL: Final = "paradime.execution"
EXECUTION_BEGAN_LABEL: Final = "paradime.execution.began"
# The tasks that have called it (`paradime_flows.ledger.callers`).
CALLER_LABEL: Final = "paradime.caller"
# The last sign of life of its process (`paradime_flows.supervision.heartbeat`).
ALIVE_LABEL: Final = "paradime.alive"
# A pipeline's steps, by name (`paradime_flows.pipelines`).
STEP_LABEL_PREFIX: Final = "paradime.step."
# How far live logs have come, and the progress artifact, by Bolt run (`paradime_flows.live`).
LOGS_LABEL_PREFIX: Final = "paradime.logs."
PROGRESS_LABEL_PREFIX: Final = "paradime.progress."
