"""The types of those flow parameters whose value a person chooses from a list."""

from typing import Literal

# What happens to the Bolt run when the flow stops waiting for the Bolt run.
Policy = Literal["cancel", "leave"]
# What happens to the Bolt run at an interrupt. auto: leave if Prefect runs the flow run again after a SIGTERM, or else
# cancel.
OnInterrupt = Literal["auto", "cancel", "leave"]
OnAlreadyRunning = Literal["wait", "attach", "attach_if_same", "fail", "skip", "replace"]
OnFailure = Literal["stop", "finish", "continue"]
# How a flow run waits for a Bolt run: in its process, or suspended, without a process.
WaitMode = Literal["hold", "suspend"]
LiveLogsMode = Literal["all", "head_and_tail", "off"]
