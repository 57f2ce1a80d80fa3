"""What may be sent to Bolt: bad input is refused here, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from paradime_blocks.errors import BoltRequestError

# GraphQL's Int is a signed 32-bit number.
_LARGEST_INT = 2**31 - 1
LARGEST_PAGE = 1000
_CONFIGS_EXAMPLE = "Give command_configs as [{'command': 'dbt test', 'continueOnError': True}]."


def _refuse(what: str, guidance: str) -> NoReturn:
    raise BoltRequestError(f"{what} Nothing was sent.", guidance=guidance)


def check_id(name: str, value: object) -> int:
    """Return an id of a run, a command or a resource.

    Raises:
        BoltRequestError: It is not a whole number from 1 to 2147483647.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_INT:
        _refuse(
            f"{name} is {value!r}.", f"Give {name} as a whole number from 1 to {_LARGEST_INT}, such as 76035."
        )
    return value


def check_count(name: str, value: object, *, least: int, most: int = _LARGEST_INT) -> int:
    """Return an offset or a limit.

    Raises:
        BoltRequestError: It is not a whole number between the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(f"{name} is {value!r}.", f"Give {name} as a whole number from {least} to {most}.")
    return value


def check_seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """Return a time in seconds.

    Raises:
        BoltRequestError: It is not a number, not a finite one, or below the least.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < least
    ):
        _refuse(
            f"{name} is {value!r}.", f"Give {name} as a number of seconds, {least:g} or more, such as 60."
        )
    return value


def check_flag(name: str, value: object) -> bool:
    """Return a choice between yes and no.

    Raises:
        BoltRequestError: It is neither True nor False; above all not "false", which Python takes for true.
    """
    if not isinstance(value, bool):
        _refuse(f"{name} is {value!r}.", f"Give {name} as True or False.")
    return value


def check_text(name: str, value: object, example: str) -> str:
    """Return a text that must say something, without the space around it.

    Raises:
        BoltRequestError: It is no text, empty, or holds control characters.
    """
    if not isinstance(value, str):
        _refuse(f"{name} is {value!r}.", f"Give {name} as text, such as {example!r}.")
    text = value.strip()
    if not text:
        _refuse(f"{name} is empty.", f"Give {name} as text, such as {example!r}.")
    if not is_one_line(text):
        _refuse(
            f"{name} holds a line break or another control character.", f"Type it again, such as {example!r}."
        )
    return text


def check_commands(commands: object) -> list[str]:
    """Return the commands that take the place of the schedule's own.

    Raises:
        BoltRequestError: They are no list, or an empty one, or one of them says nothing or holds control characters.
    """
    example = (
        "Give commands as a list, such as ['dbt run', 'dbt test'], or leave it out to run the schedule's own."
    )
    if isinstance(commands, (str, bytes)) or not isinstance(commands, Sequence):
        _refuse(f"commands is {commands!r}, not a list.", example)
    if not commands:
        _refuse("commands is an empty list.", example)
    for command in commands:
        if not _is_command(command):
            _refuse(f"commands holds {command!r}.", example)
    return [command.strip() for command in commands]


def trigger_variables(
    schedule_name: str | None = None,
    *,
    slug: str | None = None,
    commands: Sequence[str] | None = None,
    command_configs: Sequence[dict[str, Any]] | None = None,
    branch: str | None = None,
    pr_number: int | None = None,
    reason: str | None = None,
    continue_on_error: bool | None = None,
) -> dict[str, Any]:
    """Return the variables of a trigger: only what is given.

    Raises:
        BoltRequestError: Something of it is bad, or does not go together.
    """
    if commands is not None and command_configs is not None:
        _refuse("A trigger takes either commands or command_configs.", "Give one of the two.")
    variables = schedule_variables(schedule_name, slug=slug)
    given: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "commands": (commands, check_commands),
        "commandConfigs": (command_configs, _check_command_configs),
        "branch": (branch, lambda value: check_text("branch", value, "main")),
        "prNumber": (pr_number, lambda value: check_count("pr_number", value, least=1)),
        "reason": (reason, lambda value: check_text("reason", value, "triggered by Prefect")),
        "continueOnError": (continue_on_error, lambda value: check_flag("continue_on_error", value)),
    }
    variables.update({name: check(value) for name, (value, check) in given.items() if value is not None})
    return variables


def schedule_variables(schedule_name: str | None = None, *, slug: str | None = None) -> dict[str, Any]:
    """Return the variables that name a schedule.

    Raises:
        BoltRequestError: There is neither name nor slug, or both, or it is bad.
    """
    if (schedule_name is None) == (slug is None):
        _refuse(
            "A schedule's name or its slug is needed, and not both.", "Give one of schedule_name and slug."
        )
    if schedule_name is not None:
        return {"scheduleName": check_text("schedule_name", schedule_name, "daily")}
    return {"slug": check_text("slug", slug, "daily")}


def _check_command_configs(configs: object) -> list[dict[str, Any]]:
    if isinstance(configs, (str, bytes)) or not isinstance(configs, Sequence) or not configs:
        _refuse(f"command_configs is {configs!r}.", f"{_CONFIGS_EXAMPLE} Or leave it out.")
    return [_command_config(config) for config in configs]


def _command_config(config: object) -> dict[str, Any]:
    if not isinstance(config, dict) or set(config) - {"command", "continueOnError"}:
        _refuse(f"command_configs holds {config!r}.", _CONFIGS_EXAMPLE)
    command = config.get("command")
    if not _is_command(command) or not isinstance(config.get("continueOnError", False), bool):
        _refuse(f"command_configs holds {config!r}.", _CONFIGS_EXAMPLE)
    return {**config, "command": str(command).strip()}


def _is_command(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_one_line(value.strip())


def is_one_line(text: str) -> bool:
    """Whether a text holds no control character, nor the half of one that broken decoding leaves (no UTF-8)."""
    return not any(
        character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text
    )
