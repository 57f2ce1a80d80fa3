"""How the demo prints the log of a flow run."""

from __future__ import annotations

import logging
import re

# Log lines of a flow run that the demo does not show, because it prints the same in another place.
SHOWN_ELSEWHERE = (
    "Beginning flow run",
    "View at ",
    "Finished in state",
    "Running hook ",
    "Hook ",
    "The Bolt run failed.",
)
# The time before each line of dbt's output. It is the time of the recording.
DBT_TIME = re.compile(r"^\d\d:\d\d:\d\d  ?", re.MULTILINE)
# The lines of the recorded output that the demo shows.
SHOWN_OUTPUT = re.compile(r"── |Done\.|\d+ of \d+ (?:WARN|ERROR|FAIL|SKIP)\b")
PARADIME_LINK = re.compile(r" https://app\.paradime\.io/\S+")


class DemoFormatter(logging.Formatter):
    """Formats log records for the console: each line once, with times from one clock.

    Args:
        simulated: Whether Bolt is simulated. Then its links and most of the recorded output are left out.
    """

    def __init__(self, *, simulated: bool) -> None:
        super().__init__()
        self.simulated = simulated

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text; empty if the demo does not show it."""
        text = record.getMessage()
        if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
            # The error that the demo prints has the same as a failed run's traceback and end.
            if record.exc_info is not None or text.startswith(SHOWN_ELSEWHERE):
                return ""
        elif record.levelno < logging.WARNING:
            return ""
        # Live logs send their lines to Prefect's API themselves.
        is_output = getattr(record, "send_to_api", True) is False
        if is_output:
            text = DBT_TIME.sub("", text)
        if self.simulated:
            text = PARADIME_LINK.sub("", text)
            if is_output:
                text = "\n".join(line for line in text.splitlines() if SHOWN_OUTPUT.match(line))
        if not text:
            return ""
        time_of_day = self.formatTime(record, "%H:%M:%S")
        indent = "" if text.startswith("── ") or not is_output else "   "
        return f"  {time_of_day}  {indent}" + text.replace("\n", f"\n{' ' * 12}{indent}")


def log_to_the_console(formatter: DemoFormatter) -> None:
    """Use the formatter in Prefect's console handlers."""
    from prefect.logging.configuration import setup_logging

    setup_logging()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
        handler.addFilter(lambda record: bool(formatter.format(record)))
