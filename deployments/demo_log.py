"""Formats the log of a flow run for the demo's console."""

from __future__ import annotations

import logging
import re

# The demo does not print log lines with these beginnings, because the demo prints the same facts in another place.
SHOWN_ELSEWHERE = (
    "Beginning flow run",
    "View at ",
    "Finished in state",
    "Running hook ",
    "Hook ",
    "The Bolt run failed.",
)
# The time at the beginning of each line of dbt's output. This is the time of the recording, not of the demo.
DBT_TIME = re.compile(r"^\d\d:\d\d:\d\d  ?", re.MULTILINE)
# The demo prints only these lines of the recorded output.
SHOWN_OUTPUT = re.compile(r"── |Done\.|\d+ of \d+ (?:WARN|ERROR|FAIL|SKIP)\b")
PARADIME_LINK = re.compile(r" https://app\.paradime\.io/\S+")


class DemoFormatter(logging.Formatter):
    """Formats log records for the console. Each line is printed once, and all times come from one clock.

    Args:
        simulated: Whether Bolt is simulated. If so, links to Paradime and most of the recorded output are left out.
    """

    def __init__(self, *, simulated: bool) -> None:
        super().__init__()
        self.simulated = simulated

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a log record. The text is empty if the demo does not print the record."""
        text = record.getMessage()
        if record.name.startswith(("prefect.flow_runs", "prefect.task_runs")):
            # The demo prints the error of a failed flow run itself, so the traceback and the last log lines are left
            # out.
            if record.exc_info is not None or text.startswith(SHOWN_ELSEWHERE):
                return ""
        elif record.levelno < logging.WARNING:
            return ""
        # A record with `send_to_api = False` is a line of the Bolt run's output: the live logs send it to Prefect
        # themselves.
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
    """Set the formatter on the console handlers of Prefect's loggers."""
    from prefect.logging.configuration import setup_logging

    setup_logging()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
        handler.addFilter(lambda record: bool(formatter.format(record)))
