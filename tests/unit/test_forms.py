"""The forms in Prefect's UI: how they show a flow's parameters, and what they refuse."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema, parameters_to_args_kwargs
from prefect.utilities.schema_tools.validation import ValidationError as RefusedByTheForm
from prefect.utilities.schema_tools.validation import validate
from typing_extensions import Unpack

from paradime_blocks import BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.options import doc_of, option_types
from paradime_flows.archive_run import archive_run
from paradime_flows.cancel_run import cancel_run
from paradime_flows.form_groups import flat
from paradime_flows.inspect_run import inspect_run
from paradime_flows.list_schedules import list_schedules
from paradime_flows.parameters import (
    ArchiveRunOptions,
    LogOptions,
    PipelineOptions,
    RetriedRunOptions,
    RunOptions,
)
from paradime_flows.pipeline import Step
from paradime_flows.prefect_api.signatures import spread_options
from paradime_flows.prefect_api.stored import stored
from paradime_flows.report_run import report_run
from paradime_flows.retry_run import retry_run
from paradime_flows.run_pipeline import run_pipeline
from paradime_flows.run_schedule import run_schedule
from paradime_flows.sweep_orphans import sweep_orphans
from paradime_flows.trigger_only import trigger_only
from paradime_flows.watch_runs import watch_runs

FLOWS = [
    run_schedule,
    run_pipeline,
    archive_run,
    retry_run,
    cancel_run,
    trigger_only,
    list_schedules,
    inspect_run,
    sweep_orphans,
    watch_runs,
    report_run,
]
NULL = {"type": "null"}


@functools.cache
def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """The parameter schema that a deployment of a flow stores."""
    return parameter_schema(flow).model_dump_for_openapi()


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of a form and of its boxes."""
    boxes = {
        name: field["$ref"].rsplit("/", 1)[1]
        for name, field in schema["properties"].items()
        if "$ref" in field
    }
    inner = {
        f"{name}.{each}": field
        for name, box in boxes.items()
        for each, field in schema["definitions"][box]["properties"].items()
    }
    return {name: field for name, field in schema["properties"].items() if name not in boxes} | inner


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_form_has_a_dozen_fields_and_no_choice_of_none(flow: Flow[..., Any]) -> None:
    """Each field has a sentence of help. Only the picker of credentials offers None, which Prefect needs to draw it."""
    schema = schema_of(flow)
    assert len(schema["properties"]) <= 12
    for field, shown in fields_of(schema).items():
        assert shown.get("description", "").endswith("."), field
        if field != "credentials":
            assert NULL not in shown.get("anyOf", []), field
            assert "default" not in shown or shown["default"] is not None, field


def texts_in(part: object) -> list[str]:
    """All titles and help texts in a part of a schema."""
    if isinstance(part, list):
        return [text for each in part for text in texts_in(each)]
    if not isinstance(part, dict):
        return []
    own = [part[name] for name in ("title", "description") if isinstance(part.get(name), str)]
    return own + [text for each in part.values() for text in texts_in(each)]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_no_help_text_has_a_word_in_two_pieces_or_two_spaces_in_a_row(flow: Flow[..., Any]) -> None:
    """A form shows a line break as a space. The example of a model is not shown in a form."""
    schema = schema_of(flow)
    texts = [text.partition("Example:")[0].strip() for text in texts_in(schema)]
    assert len(texts) > len(schema["properties"])
    for text in texts:
        assert not re.search(r"\w-\s|[^\S\n]{2}|\s\n|\n\s", text.replace("\n\n", "\n")), text


@pytest.mark.parametrize(
    "flow, options",
    [
        (run_schedule, RunOptions),
        (run_pipeline, PipelineOptions),
        (retry_run, RetriedRunOptions),
        (archive_run, ArchiveRunOptions),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_the_help_of_a_field_is_the_description_of_its_option_alone(
    flow: Flow[..., Any], options: type
) -> None:
    """The docstring has a text about all options, which is replaced as a whole. The help of a box is about the box."""
    schema = schema_of(flow)
    described = {name: doc_of(hint) for name, hint in option_types(options).items()}
    shown = {path.rpartition(".")[2]: field["description"] for path, field in fields_of(schema).items()}
    for name, field in schema["properties"].items():
        if "$ref" in field:
            described[name] = schema["definitions"][field["$ref"].rsplit("/", 1)[1]]["description"]
            # Prefect's UI shows the description of the box's model, if the field has none of its own.
            shown[name] = field.get("description", described[name])
    assert shown.keys() >= described.keys()
    assert {name: shown[name].replace("\n", " ") for name in described} == described


@pytest.mark.parametrize(
    "flow", [archive_run, retry_run, cancel_run, inspect_run], ids=lambda flow: flow.name
)
def test_the_help_of_a_run_id_shows_one(flow: Flow[..., Any]) -> None:
    """A person sees an id only in the address of Bolt's page, and would type the address."""
    assert "only the number, such as 76002" in schema_of(flow)["properties"]["run_id"]["description"]


def test_the_form_of_a_pipeline_explains_each_choice_that_it_offers() -> None:
    """Another flow's form is on another page."""
    field = schema_of(run_pipeline)["properties"]["on_already_running"]
    assert {f"{choice}:" for choice in field["enum"]} <= set(field["description"].split())
    # A field of the box Safety names the time limit.
    about = schema_of(run_pipeline)["properties"]["safety"]["description"]
    assert "timeout_seconds is a field of each step" in about.replace("\n", " ")


@pytest.mark.parametrize("flow", [run_schedule, trigger_only], ids=lambda flow: flow.name)
def test_the_schedule_is_the_first_and_only_required_field(flow: Flow[..., Any]) -> None:
    """It opens on a plain box for text."""
    schema = schema_of(flow)
    first = min(schema["properties"].items(), key=lambda item: item[1]["position"])
    assert first[0] == "schedule_name"
    assert first[1]["anyOf"][0]["type"] == "string"
    assert schema["required"] == ["schedule_name"]


@pytest.mark.parametrize("block", [ParadimeCredentials, BoltSchedule])
def test_a_blocks_form_has_plain_fields(block: type[Any]) -> None:
    """Key, secret and proxy are boxes for passwords."""
    for field, shown in block.model_json_schema()["properties"].items():
        assert "anyOf" not in shown, field
        if field in {"api_key", "api_secret", "proxy"}:
            assert shown["format"] == "password"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"schedule_name": "daily"}, id="the schedule alone"),
        pytest.param({"schedule_name": "daily", "commands": ["dbt run"]}, id="commands as texts"),
        pytest.param(
            {"schedule_name": "daily", "commands": ["a", {"command": "b", "continue_on_error": True}]},
            id="a command with its setting",
        ),
        pytest.param({"schedule_name": "daily", "safety": {"on_crash": "leave"}}, id="a field of a box"),
    ],
)
def test_the_form_accepts_what_the_flow_accepts(given: dict[str, Any]) -> None:
    """A field left empty is not sent."""
    validate(given, schema_of(run_schedule), raise_on_error=True)
    run_schedule.validate_parameters(given)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="no schedule"),
        pytest.param({"schedule_name": " "}, id="a blank schedule"),
        pytest.param({"schedule_name": "daily", "commands": [" "]}, id="a blank command"),
        pytest.param({"schedule_name": "daily", "timeout_seconds": 0}, id="no time"),
        pytest.param({"schedule_name": "daily", "on_already_running": "panic"}, id="an unknown choice"),
        pytest.param({"schedule_name": "daily", "safety": {"on_crash": "explode"}}, id="a choice in a box"),
        pytest.param({"schedule_name": "daily", "advanced": {"pr_number": 0}}, id="a number in a box"),
        pytest.param({"schedule_name": "daily", "advanced": {"nonsense": 1}}, id="an unknown field in a box"),
    ],
)
def test_the_form_refuses_nonsense_before_the_run(given: dict[str, Any]) -> None:
    """Prefect's server also refuses it, with the same schema."""
    with pytest.raises(RefusedByTheForm):
        validate(given, schema_of(run_schedule), raise_on_error=True)


TYPED = {"api_endpoint": "https://api.paradime.io/api/v1/x/graphql", "api_key": "key", "api_secret": "secret"}
SAVED = {"$ref": {"block_document_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"credentials": TYPED}, id="credentials"),
        pytest.param({"schedule_name": {"schedule_name": "daily", "credentials": TYPED}}, id="schedule"),
        pytest.param({"logs_and_archive": {"storage": {"basepath": "s3://x", "settings": {}}}}, id="storage"),
    ],
)
def test_the_form_refuses_values_of_a_block_and_nothing_is_stored(given: dict[str, Any]) -> None:
    """Prefect stores parameters in plain text: of a block, its name is enough. A call in code is refused, too."""
    with pytest.raises(RefusedByTheForm):
        validate({"schedule_name": "daily", **given}, schema_of(run_schedule), raise_on_error=True)
    with pytest.raises(BoltRequestError, match=r"has the values of a block.*give the block's name as"):
        run_schedule.serialize_parameters({"schedule_name": "daily", **given})


def test_a_copy_for_another_workspace_is_not_stored_as_its_block() -> None:
    """Who started the flow run again would act on the workspace of the block."""
    saved = ParadimeCredentials(
        api_endpoint="https://api.paradime.io/graphql", api_secret="prdm_cmp_t", workspace_uid="w1"
    )
    saved._block_document_name, saved._block_document_id = "production", uuid4()
    for credentials, told in (
        (saved, "paradime-credentials/production"),
        (saved.for_workspace("w2"), "ParadimeCredentials, not saved"),
    ):
        assert stored("credentials", credentials) == told


@pytest.mark.parametrize("credentials", [SAVED, "production", None], ids=["picked", "named", "none"])
def test_a_form_accepts_a_saved_block_or_its_name(credentials: object) -> None:
    """The picker of the form gives the one, a person the other."""
    given = {"schedule_name": "daily", "credentials": credentials}
    validate(given, schema_of(run_schedule), raise_on_error=True)


def test_an_option_can_be_given_alone_or_in_its_box() -> None:
    """Both work as a keyword argument in Python, and in the parameters of a deployment's run."""
    by_itself = {"schedule_name": "daily", "assets": True, "on_crash": "leave", "reason": "why"}
    in_boxes = {
        "schedule_name": "daily",
        "logs_and_archive": {"assets": True},
        "safety": {"on_crash": "leave"},
        "advanced": {"reason": "why"},
    }
    first, second = (flat(run_schedule.validate_parameters(given)) for given in (by_itself, in_boxes))
    for name in option_types(RunOptions):
        assert first[name] == second[name], name
    assert first == {**first, **by_itself}
    assert first["live_logs"] == "all"


def test_an_option_given_alone_overrides_the_one_in_its_box() -> None:
    """The form sends whole boxes; a deployment's own parameters may stand beside them."""
    both = {
        "schedule_name": "a",
        "safety": {"on_crash": "leave", "on_timeout": "cancel"},
        "on_timeout": "leave",
    }
    found = flat(run_schedule.validate_parameters(both))
    assert (found["on_crash"], found["on_timeout"], found["on_interrupt"]) == ("leave", "leave", "auto")


def test_a_default_given_alone_does_not_override_the_box() -> None:
    """Prefect passes the default of every option that nobody gave: the two look the same."""
    both = {"schedule_name": "a", "safety": {"on_crash": "leave"}, "on_crash": "cancel"}
    assert flat(run_schedule.validate_parameters(both))["on_crash"] == "leave"


@pytest.mark.parametrize("box", [{}, {"non_retryable_errors": []}], ids=["untouched", "emptied"])
def test_an_empty_list_in_a_form_means_the_default(box: dict[str, Any]) -> None:
    """Prefect's V2 UI sends the empty list of a person who added an entry and deleted it again."""
    given = {"schedule_name": "daily", "advanced": {"retry_delay_seconds": 30, **box}}
    validate(given, schema_of(run_schedule), raise_on_error=True)
    assert flat(run_schedule.validate_parameters(given))["non_retryable_errors"] is None


def test_an_empty_list_in_python_retries_every_failure() -> None:
    found = flat(run_schedule.validate_parameters({"schedule_name": "daily", "non_retryable_errors": []}))
    assert found["non_retryable_errors"] == []


def test_the_engine_accepts_options_alone_in_a_deployments_run() -> None:
    """It binds the stored parameters to the flow's function, before anything is checked."""
    stored = {"schedule_name": "daily", "on_crash": "leave", "safety": {"on_timeout": "leave"}}
    assert parameters_to_args_kwargs(run_schedule.fn, stored)[1]["on_crash"] == "leave"


def test_a_copy_of_a_flow_has_the_same_form() -> None:
    """`with_options` changes other things."""
    copy = run_schedule.with_options(name="another")
    assert inspect.signature(copy) == inspect.signature(run_schedule)
    assert copy.parameters == run_schedule.parameters


@pytest.mark.parametrize("given", [{"on_crash": "explode"}, {"safety": {"on_crash": "explode"}}])
def test_a_refused_option_is_named(given: dict[str, Any]) -> None:
    """The error says what it accepts."""
    with pytest.raises(Exception, match=r"on_crash: Input should be 'cancel' or 'leave'"):
        run_schedule.validate_parameters({"schedule_name": "daily", **given})


@pytest.mark.parametrize(
    "given, told",
    [
        pytest.param({"retries": 2**63}, "retries does not fit into 64 bits", id="beyond 64 bits"),
        pytest.param({"retries": -(2**70)}, "retries does not fit into 64 bits", id="below 64 bits"),
        pytest.param({"advanced": {"pr_number": 2**64}}, "pr_number does not fit", id="in a box"),
        pytest.param({"timeout_seconds": float("nan")}, "timeout_seconds is nan", id="no number"),
        pytest.param({"timeout_seconds": float("inf")}, "timeout_seconds is inf", id="without end"),
        pytest.param({"branch": "caf\ud83d"}, r"branch contains '\\ud83d'", id="half a character"),
        pytest.param(
            {"commands": ["dbt run", "a\x00b"]}, r"commands contains '\\x00'", id="NUL in a command"
        ),
        pytest.param(
            {"commands": [{"command": "a\x00b"}]}, r"command contains '\\x00'", id="NUL in a mapping"
        ),
    ],
)
def test_a_value_that_prefect_cannot_store_is_refused_by_its_parameters_name(
    given: dict[str, Any], told: str
) -> None:
    """A flow run would be stored first, and Prefect's server fail at it in words of its own."""
    with pytest.raises(BoltRequestError, match=told):
        run_schedule.serialize_parameters({"schedule_name": "daily", **given})


@pytest.mark.parametrize(
    "flow", [run_schedule, retry_run, trigger_only, run_pipeline], ids=lambda flow: flow.name
)
async def test_the_function_of_a_flow_says_that_it_needs_a_flow_run(flow: Flow[..., Any]) -> None:
    """Some call it in unit tests, as the functions of tasks."""
    first: Any = {"run_pipeline": [Step(schedule_name="daily")], "retry_run": 1}.get(
        flow.fn.__name__, "daily"
    )
    with pytest.raises(BoltRequestError, match=r"outside of a flow run.*Call the flow itself"):
        await flow.fn(first, ParadimeCredentials(**TYPED))


@pytest.mark.parametrize("indent", ["", "    "], ids=["Python 3.13", "before"])
def test_a_docstring_is_filled_in_with_and_without_its_indentation(indent: str) -> None:
    """Python 3.13 removes the indentation of a docstring when it compiles a module."""

    async def run(**options: Unpack[LogOptions]) -> None: ...

    more = f"options: More,\n{indent}        on two lines."
    run.__doc__ = (
        f"Run.\n\n{indent}Args:\n{indent}    {more}\n\n{indent}Returns:\n{indent}    Nothing.\n{indent}"
    )
    lines = str(spread_options(run).__doc__).splitlines()
    assert lines[:3] == ["Run.", "", "Args:"]
    assert lines[-3:] == ["", "Returns:", "    Nothing."]
    assert "        on two lines." not in lines
    assert [line.partition(":")[0] for line in lines[3:-3] if not line.startswith(" " * 5)] == [
        f"    {name}" for name in option_types(LogOptions)
    ]
