"""The values of parameters that a person chooses from a list."""

from typing import Literal

# What happens to the Bolt run when the flow stops waiting for this run.
Policy = Literal["cancel", "leave"]
OnAlreadyRunning = Literal["wait", "attach", "attach_if_same", "fail", "skip", "replace"]
OnFailure = Literal["stop", "finish", "continue"]
LiveLogsMode = Literal["all", "head_and_tail", "off"]
