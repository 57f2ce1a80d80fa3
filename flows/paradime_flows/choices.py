"""What a person can choose between, by name."""

from typing import Literal

# What the end of a wait does to the Bolt run.
Policy = Literal["cancel", "leave"]
OnAlreadyRunning = Literal["wait", "attach", "attach_if_same", "fail", "skip", "replace"]
OnFailure = Literal["stop", "finish", "continue"]
LiveLogsMode = Literal["all", "head_and_tail", "off"]
