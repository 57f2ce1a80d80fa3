"""What may be sent to Bolt: bad input is refused here, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from paradime_blocks.errors import BoltRequestError

# GraphQL's Int is a signed 32-bit number.
_LARGEST_INT = 2**31 - 1
LARGEST_PAGE = 1000


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
    if any(ord(character) < ord(" ") for character in text):
        _refuse(
            f"{name} holds a line break or another control character.", f"Type it again, such as {example!r}."
        )
    return text


def check_commands(commands: object) -> list[str]:
    """Return the commands that take the place of the schedule's own.

    Raises:
        BoltRequestError: They are no list, or an empty one, or one of them says nothing.
    """
    example = (
        "Give commands as a list, such as ['dbt run', 'dbt test'], or leave it out to run the schedule's own."
    )
    if isinstance(commands, (str, bytes)) or not isinstance(commands, Sequence):
        _refuse(f"commands is {commands!r}, not a list.", example)
    if not commands:
        _refuse("commands is an empty list.", example)
    for command in commands:
        if not isinstance(command, str) or not command.strip():
            _refuse(f"commands holds {command!r}.", example)
    return [command.strip() for command in commands]


def trigger_variables(  # noqa: PLR0913 - the operation's own arguments
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
    if (schedule_name is None) == (slug is None):
        _refuse(
            "A trigger takes either a schedule's name or its slug.", "Give one of schedule_name and slug."
        )
    if commands is not None and command_configs is not None:
        _refuse("A trigger takes either commands or command_configs.", "Give one of the two.")
    variables: dict[str, Any] = {}
    if schedule_name is not None:
        variables["scheduleName"] = check_text("schedule_name", schedule_name, "daily")
    if slug is not None:
        variables["slug"] = check_text("slug", slug, "daily")
    if commands is not None:
        variables["commands"] = check_commands(commands)
    if command_configs is not None:
        variables["commandConfigs"] = [_command_config(config) for config in command_configs]
        if not variables["commandConfigs"]:
            _refuse("command_configs is an empty list.", "Leave it out to run the schedule's own commands.")
    if branch is not None:
        variables["branch"] = check_text("branch", branch, "main")
    if pr_number is not None:
        variables["prNumber"] = check_count("pr_number", pr_number, least=1)
    if reason is not None:
        variables["reason"] = reason.strip()
    if continue_on_error is not None:
        variables["continueOnError"] = bool(continue_on_error)
    return variables


def _command_config(config: object) -> dict[str, Any]:
    example = "Give command_configs as [{'command': 'dbt test', 'continueOnError': True}]."
    if not isinstance(config, dict) or set(config) - {"command", "continueOnError"}:
        _refuse(f"command_configs holds {config!r}.", example)
    command = config.get("command")
    if not isinstance(command, str) or not command.strip():
        _refuse(f"command_configs holds {config!r}.", example)
    return {**config, "command": command.strip()}
