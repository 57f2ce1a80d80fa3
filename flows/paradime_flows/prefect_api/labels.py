"""The names of the tag and the labels that this package sets on flow runs.

If you change a name, the package no longer finds the Bolt runs of older flow runs.
"""

from typing import Final

# Each flow run that triggers a Bolt run has this tag. The sweeper searches for the tag, because Prefect cannot search
# for labels.
FLOW_RUN_TAG: Final = "paradime-bolt"
# Each subflow run has these two tags: which call has made it, and in which attempt of its parents
# (`paradime_flows.ledger.retried_parents`).
CALL_TAG_PREFIX: Final = "paradime-call:"
ATTEMPT_TAG_PREFIX: Final = "paradime-attempt:"
# The tag with the schedule, for people and for automations.
_SCHEDULE_TAG_PREFIX: Final = "paradime-schedule:"

# An intent is the plan to run a schedule once. Each holder of the lease writes its own label about the intent. The name
# ends with the key of the intent and with the lease (`paradime_flows.ledger.record`).
LEDGER_LABEL_PREFIX: Final = "paradime.intent."
# Two labels for people who look at the flow run: the schedule, and the id of the Bolt run.
SCHEDULE_LABEL: Final = "paradime.schedule"
RUN_ID_LABEL: Final = "paradime.run_id"
# A lease on the flow run. The name ends with the epoch and the holder (`paradime_flows.ledger.store`). The value is the
# time of the holder's last sign of life.
LEASE_LABEL_PREFIX: Final = "paradime.lease."
# One label for each step of a pipeline. The label ends with the step's name (`paradime_flows.pipelines`).
STEP_LABEL_PREFIX: Final = "paradime.step."
# The variable with the cursor of `watch_runs`. The name ends with a hash of the workspace.
WATCH_VARIABLE_PREFIX: Final = "paradime_watch_"
# The position in the live logs of a Bolt run. The label ends with the id of the Bolt run (`paradime_flows.live`).
LOGS_LABEL_PREFIX: Final = "paradime.logs."


def schedule_tag(schedule_name: str) -> str:
    """Return the tag of the flow runs that run a schedule."""
    return f"{_SCHEDULE_TAG_PREFIX}{schedule_name}"
