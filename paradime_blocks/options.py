"""The options of a trigger and of a wait. Only this module describes these options.

The client, the blocks, the tasks and the flows have these options as keyword arguments. The signatures, the docstrings
and the forms in Prefect's UI are made from the descriptions in this module. The module `paradime_flows.parameters` adds
the options that only flows have.
"""

# No `from __future__ import annotations` in this module: other modules read the annotations when they are imported.
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from typing_extensions import Doc, TypedDict, get_type_hints

LONGEST_TIMEOUT_SECONDS = 14 * 86_400.0
T = TypeVar("T")

# With this schema, a form refuses a text that is blank or not on one line. For a call in Python, the validator below
# makes the same check.
_ONE_LINE = {
    "type": "string",
    "minLength": 1,
    "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*$",
}


def is_one_line(text: str) -> bool:
    """Whether a text is free of control characters and of lone surrogates, which UTF-8 cannot encode."""
    return not any(
        character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text
    )


def _one_line(text: str) -> str:
    if not text.strip():
        msg = "the text is blank: type some text, or leave the option out"
        raise ValueError(msg)
    if not is_one_line(text):
        msg = "the text has a line break or another control character: type it again, on one line"
        raise ValueError(msg)
    return text


NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_one_line), WithJsonSchema(_ONE_LINE)]
# A form shows this type as a list with the choices empty, true and false. A switch would have only two choices.
Flag = Annotated[bool, WithJsonSchema({"enum": [True, False]})]
PullRequest = Annotated[int, Field(ge=1, le=2**31 - 1)]
TimeoutSeconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)]
PollIntervalSeconds = Annotated[float, Field(ge=0.5, le=3600)]
OutageSeconds = Annotated[float, Field(ge=0, le=LONGEST_TIMEOUT_SECONDS)]
GraceSeconds = Annotated[float, Field(gt=0, le=3600)]


class Default:
    """The default of an option, if the default is not None."""

    def __init__(self, value: object) -> None:
        self.value = value


class _NoNullDefault(dict[str, Any]):
    """A schema that drops the default null: otherwise a form would send null, and the field does not accept null."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key != "default" or value is not None:
            super().__setitem__(key, value)


class PlainBox:
    """Makes a form show a plain field for an optional value, instead of a choice between the value and None."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the field's schema without the choice null."""
        schema = _NoNullDefault(handler(core))
        kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            schema.update(kinds[0])
        elif kinds:
            schema["anyOf"] = kinds
        return schema


# The type of a field that may be left empty.
Plain = Annotated[T | None, PlainBox()]


class Command(BaseModel):
    """A command of a Bolt run. `continue_on_error` says whether the run continues after the command has failed.

    Example:
        ```python
        from paradime_blocks.options import Command

        commands = ["dbt seed", Command(command="dbt test", continue_on_error=True), "dbt docs generate"]
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: NonEmpty = Field(default=..., description="The command, such as `dbt test`.")
    continue_on_error: bool | None = Field(
        default=None,
        description="Whether the run continues after the command has failed. If empty, the schedule decides.",
    )


def _kind_of_command(value: object) -> str:
    return "text" if isinstance(value, str) else "command"


class _TextsOrCommands:
    """Makes a form offer two kinds of list: only texts, or texts and `Command`s.

    Prefect's V1 UI cannot let the user choose the type of each entry of a list.
    """

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        text, command = schema["items"]["oneOf"]
        return {
            "anyOf": [
                {**schema, "title": "texts", "items": text},
                {**schema, "title": "texts and commands", "items": {"anyOf": [text, command]}},
            ]
        }


# A function chooses the type, so that an error is about one of the two types and not about both.
_TextOrCommand = Annotated[
    Annotated[NonEmpty, Tag("text")] | Annotated[Command, Tag("command")], Discriminator(_kind_of_command)
]
Commands = Annotated[list[_TextOrCommand], Field(min_length=1), _TextsOrCommands()]


class TriggerMain(TypedDict, total=False):
    """The options of a trigger that are used most."""

    commands: Annotated[
        Commands | None,
        Doc(
            "Commands that replace the schedule's commands in this run only. Each entry is a text, or a command with "
            "continue_on_error, which says whether the run continues after the command has failed."
        ),
    ]
    branch: Annotated[
        NonEmpty | None, Doc("A git branch or commit that replaces the schedule's branch in this run only.")
    ]


class TriggerDetails(TypedDict, total=False):
    """The other options of a trigger."""

    continue_on_error: Annotated[
        Flag | None,
        Doc("Whether the run continues after a command has failed. If empty, the schedule decides."),
    ]
    pr_number: Annotated[PullRequest | None, Doc("The number of the pull request that the run belongs to.")]
    reason: Annotated[
        NonEmpty | None,
        Doc(
            "Who or what triggers the run. Paradime shows this text on the run's page. "
            "If empty, the text is the name of the flow run in Prefect."
        ),
    ]


class TriggerOptions(TriggerMain, TriggerDetails, total=False):
    """All options of a trigger."""


class TimeoutOptions(TypedDict, total=False):
    """How long to wait for a run."""

    timeout_seconds: Annotated[
        TimeoutSeconds | None,
        Doc(
            "How long a run may take, in seconds from its trigger. Each retry in Bolt gets this time anew. "
            "The default is 24 hours."
        ),
    ]


class PollOptions(TypedDict, total=False):
    """How often to poll a run."""

    poll_interval_seconds: Annotated[
        PollIntervalSeconds | None,
        Doc(
            "The longest time between two polls of a run, in seconds. New runs are polled more often, and so is a run "
            "whose end is likely. The default is 54."
        ),
    ]


class OutageOptions(TypedDict, total=False):
    """How long to wait while Bolt is unreachable, and after a cancel."""

    max_outage_seconds: Annotated[
        OutageSeconds | None,
        Doc(
            "How long Bolt may be unreachable before the wait for a run fails, in seconds. Such a failure does not "
            "cancel the run. The default is 600."
        ),
    ]
    cancel_grace_seconds: Annotated[
        GraceSeconds | None,
        Doc("How long a run may take to end after a cancel, in seconds. The default is 60."),
    ]


class WaitOptions(TimeoutOptions, PollOptions, OutageOptions, total=False):
    """All options of a wait for a run."""


def option_types(kind: type) -> dict[str, Any]:
    """Return the type of each option of a group, in order. Each type contains the option's description and default."""
    return get_type_hints(kind, include_extras=True)


def doc_of(annotation: object) -> str:
    """Return the description of an option from the option's type."""
    return next((each.documentation for each in get_args(annotation) if isinstance(each, Doc)), "")


def default_of(annotation: object) -> Any:
    """Return the default of an option from the option's type; None if the type has no default."""
    return next((each.value for each in get_args(annotation) if isinstance(each, Default)), None)


def described(kind: type, name: str, **more: Any) -> Any:
    """Return a pydantic field for an option, with the option's description and the default None.

    Args:
        kind: The group of options.
        name: The option.
        more: Further arguments of `pydantic.Field`.
    """
    return Field(**{"default": None, "description": doc_of(option_types(kind)[name]), **more})


def chosen(kind: type[T], options: Mapping[str, Any]) -> T:
    """Return the options that belong to a group and are not None."""
    names = option_types(kind)
    return {name: value for name, value in options.items() if name in names and value is not None}  # type: ignore[return-value]
