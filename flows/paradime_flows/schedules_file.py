"""Reads the order of schedules from `paradime_schedules.yml`: which schedule Bolt starts after which other one.

No query of Bolt returns this order. A schedule in the file has the order under `schedule_trigger`, or under `run_after`
in the newer spelling. Both spellings, and their keys, are known from the vendor's help pages; other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from paradime_blocks import BoltRequestError


@dataclass(frozen=True)
class FileSchedule:
    """A schedule of the file.

    Attributes:
        name: The schedule's name.
        after: The schedule after which Bolt starts this schedule; None if there is no such schedule.
        on: How the other schedule must have ended: `passed`, `failed` or `sla`. Empty if the file does not say it.
        workspace: The workspace of the other schedule, if the file names one.
        commands: The schedule's commands.
    """

    name: str
    after: str | None = None
    on: tuple[str, ...] = ()
    workspace: str | None = None
    commands: tuple[str, ...] = ()

    @property
    def starts_after_success(self) -> bool:
        """Whether Bolt starts this schedule when the other one has succeeded."""
        return self.after is not None and (not self.on or "passed" in self.on)


def read_schedules(path: str | Path) -> list[FileSchedule]:
    """Read the schedules of a file, or of all YAML files of a folder, such as `.bolt`.

    Args:
        path: The path of `paradime_schedules.yml`, or of a folder.

    Raises:
        BoltRequestError: The file cannot be read, or has no schedules.
    """
    place = Path(path)
    files = sorted([*place.glob("*.yml"), *place.glob("*.yaml")]) if place.is_dir() else [place]
    found = [_schedule(entry) for file in files for entry in _entries(file)]
    if not found:
        raise BoltRequestError(f"{path} has no schedules.", guidance="Name the file paradime_schedules.yml.")
    return found


def _entries(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        data = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise BoltRequestError(f"{file} cannot be read: {error}", guidance="") from error
    # In a folder, each file may be one schedule.
    entries = data.get("schedules", [data]) if isinstance(data, Mapping) else data
    for entry in entries or []:
        if isinstance(entry, Mapping) and entry.get("name"):
            yield entry


def _schedule(entry: Mapping[str, Any]) -> FileSchedule:
    name, commands = str(entry["name"]), tuple(str(each) for each in entry.get("commands") or ())
    trigger = entry.get("run_after") or entry.get("schedule_trigger")
    if isinstance(trigger, str):
        trigger = {"schedule": trigger}
    if not isinstance(trigger, Mapping) or _is_off(trigger.get("enabled", True)):
        return FileSchedule(name, commands=commands)
    after = trigger.get("schedule") or trigger.get("schedule_name")
    on = trigger.get("on") or trigger.get("trigger_on") or ()
    workspace = trigger.get("workspace") or trigger.get("workspace_name")
    return FileSchedule(
        name,
        after=str(after) if after else None,
        on=(on,) if isinstance(on, str) else tuple(str(each) for each in on),
        workspace=str(workspace) if workspace else None,
        commands=commands,
    )


def _is_off(enabled: object) -> bool:
    # YAML 1.2 reads `no` and `off` as text.
    return enabled is False or str(enabled).lower() in {"false", "no", "off"}
