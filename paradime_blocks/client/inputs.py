"""Checks what the client sends to Bolt: invalid input is refused before a request is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.options import Command, TriggerOptions, is_one_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

# GraphQL's Int is a signed 32-bit number.
_LARGEST_INT = 2**31 - 1
LARGEST_PAGE = 1000
_COMMANDS_EXAMPLE = (
    "Give commands as a list, such as ['dbt run', {'command': 'dbt test', 'continue_on_error': True}], "
    "or leave commands out to run the schedule's own commands."
)


def _refuse(what: str, guidance: str) -> NoReturn:
    raise BoltRequestError(f"{what} Nothing was sent.", guidance=guidance)


def check_id(name: str, value: object) -> int:
    """Return the id of a run, a command or a resource, if it is valid.

    Raises:
        BoltRequestError: The value is not a whole number from 1 to 2147483647.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_INT:
        _refuse(
            f"{name} is {value!r}.", f"Give {name} as a whole number from 1 to {_LARGEST_INT}, such as 76035."
        )
    return value


def check_count(name: str, value: object, *, least: int, most: int = _LARGEST_INT) -> int:
    """Return an offset or a limit, if it is valid.

    Raises:
        BoltRequestError: The value is not a whole number from `least` to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(f"{name} is {value!r}.", f"Give {name} as a whole number from {least} to {most}.")
    return value


def check_seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """Return a time in seconds, if it is valid.

    Raises:
        BoltRequestError: The value is not a finite number, or is less than `least`.
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
    """Return a value if it is True or False.

    Raises:
        BoltRequestError: The value is neither True nor False. The text "false" is refused, because Python treats any
            text that is not empty as true.
    """
    if not isinstance(value, bool):
        _refuse(f"{name} is {value!r}.", f"Give {name} as True or False.")
    return value


def check_text(name: str, value: object, example: str) -> str:
    """Return a text without the white space around it, if the text is valid.

    Raises:
        BoltRequestError: The value is not a text, is empty, or has control characters.
    """
    if not isinstance(value, str):
        _refuse(f"{name} is {value!r}.", f"Give {name} as text, such as {example!r}.")
    text = value.strip()
    if not text:
        _refuse(f"{name} is empty.", f"Give {name} as text, such as {example!r}.")
    if not is_one_line(text):
        _refuse(
            f"{name} holds a line break or another control character.",
            f"Type {name} again, such as {example!r}.",
        )
    return text


def check_commands(commands: object) -> list[str | Command]:
    """Return the commands that replace the schedule's commands, if they are valid.

    A command with `continue_on_error` is returned as a `Command`, any other command as text.

    Raises:
        BoltRequestError: The value is not a list, the list is empty, or a command is blank or has control characters.
    """
    if isinstance(commands, (str, bytes)) or not isinstance(commands, Sequence):
        _refuse(f"commands is {commands!r}, not a list.", _COMMANDS_EXAMPLE)
    if not commands:
        _refuse("commands is an empty list.", _COMMANDS_EXAMPLE)
    return [_command(command) for command in commands]


def _command(value: object) -> str | Command:
    try:
        command = Command(command=value) if isinstance(value, str) else Command.model_validate(value)
    except ValidationError:
        _refuse(f"commands holds {value!r}, which is no valid command.", _COMMANDS_EXAMPLE)
    text = command.command.strip()
    if command.continue_on_error is None:
        return text
    return Command(command=text, continue_on_error=command.continue_on_error)


def command_text(command: str | Command) -> str:
    """Return the command line of a command, which is a text or a `Command`."""
    return command if isinstance(command, str) else command.command


@dataclass(frozen=True)
class _Argument:
    """An argument of the trigger mutation: its name and type in GraphQL, and the check of its value."""

    name: str
    type: str
    check: Callable[[Any], Any]


# The argument for each option of `TriggerOptions`. `commands` is not here: it is sent under one of two names.
_ARGUMENTS = {
    "branch": _Argument("branch", "String!", lambda value: check_text("branch", value, "main")),
    "pr_number": _Argument("prNumber", "Int!", lambda value: check_count("pr_number", value, least=1)),
    "reason": _Argument(
        "reason", "String!", lambda value: check_text("reason", value, "triggered by Prefect")
    ),
    "continue_on_error": _Argument(
        "continueOnError", "Boolean!", lambda value: check_flag("continue_on_error", value)
    ),
}
TRIGGER_ARGUMENTS = {
    "scheduleName": "String!",
    "commands": "[String!]!",
    "commandConfigs": "[BoltCommandInput!]!",
    **{argument.name: argument.type for argument in _ARGUMENTS.values()},
}


def trigger_variables(schedule_name: str, **options: Unpack[TriggerOptions]) -> dict[str, Any]:
    """Return the GraphQL variables of a trigger. An option that is None is left out.

    Args:
        schedule_name: The schedule's name or slug.
        options: The options of the trigger. `TriggerOptions` describes each option.

    Raises:
        BoltRequestError: The schedule's name or an option is invalid.
    """
    variables = {"scheduleName": check_schedule(schedule_name)}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "commands" in given:
        variables.update(_commands_as_sent(check_commands(given.pop("commands"))))
    for name, value in given.items():
        argument = _ARGUMENTS[name]
        variables[argument.name] = argument.check(value)
    return variables


def _commands_as_sent(commands: list[str | Command]) -> dict[str, Any]:
    """Return the GraphQL variables for the commands: texts for any backend, or configurations for newer backends.

    Configurations are needed if at least one command is a `Command`.
    """
    if all(isinstance(command, str) for command in commands):
        return {"commands": commands}
    configs = [
        {"command": command}
        if isinstance(command, str)
        else {"command": command.command, "continueOnError": command.continue_on_error}
        for command in commands
    ]
    return {"commandConfigs": configs}


def check_schedule(schedule_name: object) -> str:
    """Return the name or slug of a schedule, if it is valid. Bolt accepts either of them in each request.

    Raises:
        BoltRequestError: The value is not a text, is blank, or has control characters.
    """
    return check_text("schedule_name", schedule_name, "daily")
