"""Turns a cron expression into words. An expression that this module does not understand is returned unchanged."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Final

from cronsim import CronSim, CronSimError

from paradime_blocks.text import one_line

_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# The values that each field of a cron expression can have.
_FIELDS: Final = (range(60), range(24), range(1, 32), range(1, 13), range(7))
_FEW: Final = 7
_ORDINALS: Final = {"1": "st", "2": "nd", "3": "rd"}
_ANY_DAY: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)


def cron_in_words(cron: str | None) -> str:
    """Return a cron expression in words, such as "At 06:30 on Monday through Friday". Bolt's times are UTC.

    Args:
        cron: The cron expression. None, an empty text or `OFF` means that the schedule has no timer.
    """
    text = one_line(cron or "")
    if not text or text.upper() == "OFF":
        return "no timer"
    fields = _MACROS.get(text.lower(), text).split()
    if len(fields) != len(_FIELDS):
        return text
    # Quartz writes a question mark where cron writes a star.
    *_, day, _month, weekday = fields = [field.replace("?", "*") for field in fields]
    if day != "*" and weekday != "*":
        # Cron programs differ if the fields for the day of the month and the day of the week are both set: most
        # programs start on a day that matches one of the two fields, some programs start only on a day that matches
        # both fields.
        return text
    plain = [_plainly(field, values) for field, values in zip(fields, _FIELDS, strict=True)]
    if None in plain:
        return text
    try:
        words = CronSim(" ".join(filter(None, plain)), _ANY_DAY).explain()
    except CronSimError:
        return text
    # CronSim writes "the 22th day", which is wrong English.
    return one_line(re.sub(r"\b([23]([123]))th\b", lambda day: day[1] + _ORDINALS[day[2]], words))


def _plainly(field: str, values: range) -> str | None:
    """Replace an uneven step in a field of a cron expression by its values. None if there are too many values.

    `*/45` in the field for minutes is an uneven step. The step does not mean every 45 minutes, but minute 0 and minute
    45 of each hour.
    """
    whole = {"*", str(values[0]), f"{values[0]}-{values[-1]}"}
    parts = []
    for part in field.split(","):
        start, _, step = part.partition("/")
        stops = values[:: int(step)] if start in whole and re.fullmatch(r"[1-9][0-9]?", step) else values[:0]
        if len(stops) > _FEW and len(values) % int(step):
            return None
        uneven = bool(stops) and (len(values) % int(step) or len(stops) == 1)
        parts.append(",".join(map(str, stops)) if uneven else part)
    return ",".join(parts)
