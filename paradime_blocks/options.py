"""The options of a trigger and of a wait, described once.

The client, the blocks, the tasks and the flows have these options as keyword arguments. Their signatures and
docstrings, and the forms in Prefect's UI, are made from the descriptions in this module. The module
`paradime_flows.parameters` adds the options that only flows have.
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

# The schema with which a form refuses a value. For a call in Python, the validator below makes the same check.
_ONE_LINE = {
    "type": "string",
    "minLength": 1,
    "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*$",
}


def is_one_line(text: str) -> bool:
    """Whether a text has no control character and no lone surrogate, which UTF-8 cannot encode."""
    return not any(
        character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text
    )


def _one_line(text: str) -> str:
    if not text.strip():
        msg = "it is blank: type some text, or leave it out"
        raise ValueError(msg)
    if not is_one_line(text):
        msg = "it holds a line break or another control character: type it again, on one line"
        raise ValueError(msg)
    return text


NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_one_line), WithJsonSchema(_ONE_LINE)]
# In a form, a list with the choices empty, true and false. A switch has only two positions.
Flag = Annotated[bool, WithJsonSchema({"enum": [True, False]})]
PullRequest = Annotated[int, Field(ge=1, le=2**31 - 1)]
TimeoutSeconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)]
PollIntervalSeconds = Annotated[float, Field(ge=0.5, le=3600)]
OutageSeconds = Annotated[float, Field(ge=0, le=LONGEST_TIMEOUT_SECONDS)]
GraceSeconds = Annotated[float, Field(gt=0, le=3600)]


class Default:
    """The default of an option, if it is not None."""

    def __init__(self, value: object) -> None:
        self.value = value


class _NoNullDefault(dict[str, Any]):
    """A schema that ignores the default null: a form would send null, which the field does not accept."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key != "default" or value is not None:
            super().__setitem__(key, value)


class PlainBox:
    """Makes a form show a plain field for an optional value, instead of a choice between the value and None."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema without null."""
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
    """A command of a run. It can say whether the run continues when the command fails.

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
        description="Whether the run continues when the command fails. Empty: as the schedule says.",
    )


def _kind_of_command(value: object) -> str:
    return "text" if isinstance(value, str) else "command"


class _TextsOrCommands:
    """Makes a form offer a list of texts or a list of both, since Prefect's first UI cannot show a choice in a list."""

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
            "Commands that replace the schedule's own, for this run only. Each is a text, or a command with "
            "continue_on_error: whether the run continues when it fails."
        ),
    ]
    branch: Annotated[
        NonEmpty | None, Doc("A git branch or commit that replaces the schedule's own, for this run only.")
    ]


class TriggerDetails(TypedDict, total=False):
    """The other options of a trigger."""

    continue_on_error: Annotated[
        Flag | None,
        Doc("Whether the run continues after a command that failed. Empty: as the schedule says."),
    ]
    pr_number: Annotated[PullRequest | None, Doc("The number of the pull request that the run belongs to.")]
    reason: Annotated[
        NonEmpty | None,
        Doc("Who or what triggers the run, for Paradime's page. Empty: the name of the flow run in Prefect."),
    ]


class TriggerOptions(TriggerMain, TriggerDetails, total=False):
    """All options of a trigger."""


class TimeoutOptions(TypedDict, total=False):
    """How long to wait for a run."""

    timeout_seconds: Annotated[
        TimeoutSeconds | None, Doc("How long a run may take, in seconds from its trigger. Empty: 24 hours.")
    ]


class PollOptions(TypedDict, total=False):
    """How often to poll a run."""

    poll_interval_seconds: Annotated[
        PollIntervalSeconds | None,
        Doc(
            "The longest time between two polls of a run, in seconds. New runs are polled more often. Empty: 15."
        ),
    ]


class OutageOptions(TypedDict, total=False):
    """How long to wait while Bolt is unreachable, and after a cancel."""

    max_outage_seconds: Annotated[
        OutageSeconds | None,
        Doc(
            "How long Bolt may be unreachable before the wait fails, in seconds. The run is not cancelled then. "
            "Empty: 600."
        ),
    ]
    cancel_grace_seconds: Annotated[
        GraceSeconds | None,
        Doc("How long a cancelled run may take until it has ended, in seconds. Empty: 60."),
    ]


class WaitOptions(TimeoutOptions, PollOptions, OutageOptions, total=False):
    """All options of a wait for a run."""


def option_types(kind: type) -> dict[str, Any]:
    """Return the type of each option of a group, in order. The type contains the description and the default."""
    return get_type_hints(kind, include_extras=True)


def doc_of(annotation: object) -> str:
    """Return the description of an option, which is in its type."""
    return next((each.documentation for each in get_args(annotation) if isinstance(each, Doc)), "")


def default_of(annotation: object) -> Any:
    """Return the default of an option: the one in its type, otherwise None."""
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
