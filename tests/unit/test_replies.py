"""How replies are read: kinds of errors, what a backend lacks, and replies that are incomplete or missing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from paradime_blocks import BoltAlreadyRunning, BoltError, BoltRequestError, BoltUnavailable, BoltUnsupported
from paradime_blocks.client.operations import (
    BOLT_COMMAND_RESOURCES,
    BOLT_RUN_STATUS,
    BOLT_SCHEDULE_NAME,
    CANCEL_BOLT_RUN,
    LIST_BOLT_RUNS,
    TRIGGER_BOLT_RUN,
)
from paradime_blocks.client.replies import graphql_error, read_aliases, read_reply
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.text.redaction import Redactor

NOTHING_SECRET = Redactor([])
SECRET = "n33dle-in-the-haystack"


def test_the_whole_text_of_an_error_decides_its_kind():
    """Only the shown text is cut."""
    text = "at com.example.Frame\n" * 500 + "AlreadyRunningException"
    error = graphql_error(TRIGGER_BOLT_RUN, [{"message": text}], NOTHING_SECRET)
    assert isinstance(error, BoltAlreadyRunning)


def test_the_facts_of_a_graphql_error_are_cleaned_too():
    """Path and extensions come from Bolt, like the message."""
    entry = {
        "message": "no",
        "path": [SECRET, 0],
        "extensions": {"trace": [f"{SECRET}\x1b" + "x" * 2999] * 99},
    }
    error = graphql_error(BOLT_RUN_STATUS, [entry], Redactor([SECRET]))
    assert isinstance(error, BoltUnavailable)
    assert error.path == ["[removed]", 0]
    message = f"{error} {error.graphql_errors}"
    assert SECRET not in message
    assert "\\x1b" not in message
    assert len(message) < 20_000


def test_a_validation_error_that_names_nothing_is_a_refusal():
    """Half a phrase of graphql-js is still one of our errors."""
    assert (
        type(graphql_error(BOLT_RUN_STATUS, [{"message": "Unknown type "}], NOTHING_SECRET))
        is BoltRequestError
    )


@pytest.mark.parametrize(
    "message, kind, missing",
    [
        pytest.param("Cannot query field 'slug' on type 'T'.", BoltUnsupported, "slug", id="field"),
        pytest.param('Cannot query field "slug" on type "T".', BoltUnsupported, "slug", id="double quotes"),
        pytest.param(
            "Unknown argument 'reason' on field 'Mutation.triggerBoltRun'.",
            BoltUnsupported,
            "reason",
            id="argument",
        ),
        pytest.param("Unknown type 'BoltCommandInput'.", BoltUnsupported, "BoltCommandInput", id="type"),
        pytest.param(
            "Field 'continueOnError' is not defined by type 'BoltCommandInput'.",
            BoltUnsupported,
            "continueOnError",
            id="input field",
        ),
        pytest.param("AlreadyRunningException: daily", BoltAlreadyRunning, None, id="already running"),
        pytest.param("No such schedule.", BoltRequestError, None, id="anything else"),
    ],
)
def test_graphql_errors_are_classified_by_the_callers_next_step(message, kind, missing):
    """The decision uses the phrases of graphql-js and its ports: the API has no codes."""
    error = graphql_error(BOLT_RUN_STATUS, [{"message": message}], NOTHING_SECRET)
    assert type(error) is kind
    assert getattr(error, "missing", None) == missing


@pytest.mark.parametrize(
    "message, code",
    [
        pytest.param("Internal error", None, id="internal error"),
        pytest.param("Unknown error", None, id="unknown error"),
        pytest.param("could not connect to server", None, id="database"),
        pytest.param("Oops", "INTERNAL_SERVER_ERROR", id="code of Apollo"),
        pytest.param("Schedule 'not found' failed to load", None, id="words of a refusal in a name"),
    ],
)
def test_a_read_that_may_have_failed_inside_bolt_is_repeated(message, code):
    """A second read does no harm; a mutation with the same error is refused."""
    entry = {"message": message, "extensions": {"code": code}}
    assert isinstance(graphql_error(BOLT_SCHEDULE_NAME, [entry], NOTHING_SECRET), BoltUnavailable)
    assert type(graphql_error(CANCEL_BOLT_RUN, [entry], NOTHING_SECRET)) is BoltRequestError


@pytest.mark.parametrize(
    "message, code",
    [
        pytest.param("Schedule 'daily' not found", None, id="not found"),
        pytest.param("There is no workspace 'acme'", None, id="no workspace"),
        pytest.param("Could not find run 5", None, id="could not find"),
        pytest.param("Syntax Error: Expected Name, found '{'.", None, id="syntax"),
        pytest.param("Oops", "GRAPHQL_VALIDATION_FAILED", id="validation by its code"),
        pytest.param("User is not authenticated", None, id="authentication"),
        pytest.param("Token has expired", None, id="token"),
        pytest.param("Oops", "UNAUTHENTICATED", id="authentication by its code"),
        pytest.param("You may not do this: permission denied", None, id="permission"),
    ],
)
def test_a_read_that_bolt_refuses_is_not_repeated(message, code):
    """Validation, missing objects, and credentials: the same request would be refused again."""
    entry = {"message": message, "extensions": {"code": code}}
    assert type(graphql_error(BOLT_SCHEDULE_NAME, [entry], NOTHING_SECRET)) is BoltRequestError


@pytest.mark.parametrize(
    "message", ["Permission denied: API key lacks capability Bolt Schedules Admin", "Invalid API key"]
)
def test_a_refusal_for_the_key_says_what_the_key_needs(message):
    """The value to correct is not in the request."""
    error = graphql_error(TRIGGER_BOLT_RUN, [{"message": message}], NOTHING_SECRET)
    assert "need the capability 'Bolt Schedules Admin'" in str(error)
    assert "Correct the value" not in str(error)


def test_a_quoted_name_is_no_hint_at_the_key():
    """The value to correct is the name."""
    error = graphql_error(
        TRIGGER_BOLT_RUN, [{"message": "Schedule 'permission_sync' is suspended"}], NOTHING_SECRET
    )
    assert "Correct the value that Bolt names" in str(error)


def test_a_graphql_error_with_http_400_is_a_refusal():
    """HTTP 400 means that the request is wrong, whatever the text is."""
    entry = {"message": "Internal error"}
    error = graphql_error(BOLT_SCHEDULE_NAME, [entry], NOTHING_SECRET, status_code=400)
    assert type(error) is BoltRequestError


@pytest.mark.parametrize("errors", [["just text"], [{"msg": "no message"}], [{"message": None}], [7]])
def test_odd_graphql_errors_are_quoted_unchanged(errors):
    """A server that breaks the specification is still quoted."""
    error = graphql_error(BOLT_RUN_STATUS, errors, NOTHING_SECRET)
    assert isinstance(error, BoltUnavailable)
    assert str(next(iter(errors[0].values())) if isinstance(errors[0], dict) else errors[0]) in str(error)


# Messages of several kinds of servers for an argument, field or type that they do not have.
WORDINGS = [
    pytest.param('Unknown argument "reason" on field "Mutation.triggerBoltRun".', "reason", id="graphql-js"),
    pytest.param(
        'Unknown argument "reason" on field "triggerBoltRun" of type "Mutation".', "reason", id="graphene 2"
    ),
    pytest.param("Unknown argument 'reason' on field 'Mutation.triggerBoltRun'.", "reason", id="strawberry"),
    pytest.param(
        'Unknown argument "reason" on field "Mutation.triggerBoltRun". Did you mean "season"?',
        "reason",
        id="with a guess",
    ),
    pytest.param(
        "Validation error (UnknownArgument@[triggerBoltRun]) : Unknown field argument 'reason'",
        "reason",
        id="graphql-java",
    ),
    pytest.param(
        "Validation error of type UnknownArgument: Unknown field argument reason @ 'triggerBoltRun'",
        "reason",
        id="older graphql-java",
    ),
    pytest.param("The argument `reason` does not exist.", "reason", id="Hot Chocolate"),
    pytest.param("Field 'triggerBoltRun' doesn't accept argument 'reason'", "reason", id="graphql-ruby"),
    pytest.param("'triggerBoltRun' has no argument named 'reason'", "reason", id="Hasura"),
    pytest.param(
        "Provided Argument < reason > doesn't exist on field < Mutation.triggerBoltRun >.",
        "reason",
        id="Tartiflette",
    ),
    pytest.param('Unknown type "BoltCommandInput".', "BoltCommandInput", id="type"),
    pytest.param(
        "BoltCommandInput isn't a defined input type (on $commandConfigs)",
        "BoltCommandInput",
        id="Ruby's type",
    ),
    pytest.param(
        "Variable '$commandConfigs' got invalid value {'command': 'dbt run', 'x': 1} at 'commandConfigs[0]'; "
        "Field 'continueOnError' is not defined by type 'BoltCommandInput'.",
        "continueOnError",
        id="field of an input",
    ),
    pytest.param(
        "Variable '$commandConfigs' has invalid value at [0]: Expected value of type 'BoltCommandInput' not to "
        "include unknown field 'continueOnError', found: {'command': 'dbt run', 'continueOnError': True}.",
        "continueOnError",
        id="field of an input, graphql-core 3.3",
    ),
    pytest.param(
        'Variable "$commandConfigs" got invalid value [{"command": "dbt run"}].\n'
        'In element #0: In field "continueOnError": Unknown field.',
        "continueOnError",
        id="graphene 2's field of an input",
    ),
    pytest.param("Cannot query field 'retryBoltRun' on type 'Mutation'.", "retryBoltRun", id="operation"),
    pytest.param(
        "Validation error (FieldUndefined@[retryBoltRun]) : Field 'retryBoltRun' in type 'Mutation' is undefined",
        "retryBoltRun",
        id="graphql-java's operation",
    ),
    pytest.param(
        "The field `retryBoltRun` does not exist on the type `Mutation`.",
        "retryBoltRun",
        id="Hot Chocolate's operation",
    ),
    pytest.param(
        "Field 'retryBoltRun' doesn't exist on type 'Mutation'", "retryBoltRun", id="graphql-ruby's operation"
    ),
    pytest.param(
        "field 'retryBoltRun' not found in type: 'mutation_root'", "retryBoltRun", id="Hasura's operation"
    ),
    *(
        pytest.param(
            f"{label}Unknown argument 'reason' on field 'Mutation.triggerBoltRun'.", "reason", id=label
        )
        for label in (
            "Validation error: ",
            "[ValidationError] ",
            "[Validation error]: ",
            "ValidationError: ",
            "GraphQL validation failed: ",
            "GRAPHQL_VALIDATION_FAILED: ",
            "GraphQL error: Validation failed: ",
        )
    ),
]


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("text, missing", WORDINGS)
def test_a_lack_is_recognised_in_the_messages_of_many_servers(text, missing, status):
    """This holds even for a trigger: such a refusal comes before anything is executed."""
    reply = httpx.Response(status, json={"errors": [{"message": text}], "data": None})
    with pytest.raises(BoltUnsupported) as caught:
        read_reply(TRIGGER_BOLT_RUN, "triggerBoltRun", reply, "the test", NOTHING_SECRET)
    assert caught.value.missing == missing


def test_an_execution_error_is_not_a_missing_argument():
    """Its path shows that the mutation was executed, whatever the text is."""
    text = "Unknown argument 'reason' on field 'Mutation.triggerBoltRun'."
    errors = [{"message": text, "path": ["triggerBoltRun"]}]
    assert not isinstance(graphql_error(TRIGGER_BOLT_RUN, errors, NOTHING_SECRET), BoltUnsupported)
    errors = [{"message": text, "path": ["mutation TriggerBoltRun", "triggerBoltRun", "reason"]}]
    assert isinstance(graphql_error(TRIGGER_BOLT_RUN, errors, NOTHING_SECRET), BoltUnsupported), (
        "a path into the document"
    )


@pytest.mark.parametrize(
    "text, missing",
    [
        pytest.param("Unsupported field 'suspended'", "suspended", id="field"),
        pytest.param(
            "BoltSchedule does not have a 'suspended' field", "suspended", id="name before its kind"
        ),
        pytest.param(
            "[api-7] Cannot query field 'suspended' on type 'BoltSchedule'.", "suspended", id="any brackets"
        ),
        pytest.param(
            "bolt-api: Cannot query field 'gitInfo' on type 'BoltRun'.", "gitInfo", id="any label, any field"
        ),
        pytest.param("The server cannot query field 'suspended' here", "suspended", id="cannot query"),
        pytest.param("Schedule with slug 'dayly' does not exist", None, id="a missing schedule"),
        pytest.param("Schedule daily does not exist", None, id="a schedule without quotes"),
        pytest.param("The slug is unknown", None, id="no quotes"),
        pytest.param("Unknown value of argument 'scheduleName'", None, id="an argument of the reference"),
    ],
)
def test_a_reads_lack_is_recognised_in_more_messages(text: str, missing: str | None) -> None:
    """A read may be sent again; but a missing schedule is not a missing argument."""
    error = graphql_error(BOLT_SCHEDULE_NAME, [{"message": text}], NOTHING_SECRET)
    assert type(error) is (BoltUnsupported if missing else BoltRequestError)
    assert getattr(error, "missing", None) == missing


@pytest.mark.parametrize("text", ["no such argument: `slug`", 'variable "$slug" is not defined'])
def test_a_reads_missing_argument_is_recognised_in_more_messages(text: str) -> None:
    """The operation must have that argument."""
    error = graphql_error(LIST_BOLT_RUNS, [{"message": text}], NOTHING_SECRET)
    assert isinstance(error, BoltUnsupported)
    assert error.missing == "slug"


HALF_ANSWERS = [
    pytest.param(
        {"boltRunStatus": {"ok": True, "state": "SUCCESS", "commands": None}},
        lambda client: client.get_bolt_run(1),
        id="run without its commands",
    ),
    pytest.param(
        {"listBoltSchedules": {"schedules": None, "totalCount": 7}},
        lambda client: client.list_bolt_schedules(),
        id="page without its schedules",
    ),
    pytest.param(
        {"a0": {"ok": True, "resources": []}, "a1": {"ok": True, "resources": None}},
        lambda client: client.get_bolt_command_resources([1, 2]),
        id="aliases",
    ),
]


@pytest.mark.parametrize("data, call", HALF_ANSWERS)
async def test_an_incomplete_reply_to_a_read_is_requested_again(client_of, data, call):
    """Errors beside data do not mean "no commands" or "no schedules"."""
    (path,) = [[name, part] for name, value in data.items() for part, held in value.items() if held is None]
    body = {"data": data, "errors": [{"message": "the database is away", "path": path}]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    client = client_of(
        "https://api.paradime.invalid/g", transport=transport, retry_policy=RetryPolicy(attempts=2)
    )
    async with client:
        with pytest.raises(BoltUnavailable, match=r"partial answer.*the database is away"):
            await call(client)


def test_a_backend_that_ignores_aliases_is_recognised() -> None:
    """A value under the field's own name means that aliases are not supported: ask one by one."""
    reply = httpx.Response(200, json={"data": {"boltCommand": {"resources": []}}})
    with pytest.raises(BoltUnsupported, match="alias"):
        read_aliases(BOLT_COMMAND_RESOURCES, ["a0", "a1"], reply, "the test", NOTHING_SECRET)


def _replying(*replies: Any) -> httpx.MockTransport:
    """Responses that the simulator would never give; the last one is repeated."""
    left = list(replies)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": left.pop(0) if len(left) > 1 else left[0]})

    return httpx.MockTransport(answer)


async def test_iterating_works_with_short_pages_and_no_total_count(client_of):
    """The backend counts nothing, and returns two schedules, whatever number was requested."""

    def answer(request: httpx.Request) -> httpx.Response:
        offset = json.loads(request.content)["variables"]["offset"]
        page = [{"name": name} for name in "abcde"[offset : offset + 2]]
        return httpx.Response(200, json={"data": {"listBoltSchedules": {"schedules": page}}})

    async with client_of("http://localhost/graphql", transport=httpx.MockTransport(answer)) as client:
        assert [schedule.name async for schedule in client.iter_bolt_schedules(page_size=4)] == list("abcde")


async def test_unknown_fields_survive(client_of):
    """Fields of a newer API that this package does not know are kept, at every level."""
    reply = {
        "boltRunStatus": {
            "ok": True,
            "state": "RUNNING",
            "moonPhase": "waxing",
            "commands": [{"id": 1, "command": "dbt run", "cpuHours": 3}],
        }
    }
    async with client_of("http://localhost/graphql", transport=_replying(reply)) as client:
        status = await client.get_bolt_run(1)
    assert status.model_extra == {"moonPhase": "waxing"}
    assert json.loads(status.model_dump_json())["commands"][0]["cpuHours"] == 3


async def test_one_refusal_among_many_is_an_error_and_not_an_empty_list(client_of):
    """`ok: false` under an alias means the same as in a reply of its own."""
    replies = _replying({"a0": {"ok": True, "resources": []}, "a1": {"ok": False, "resources": None}})
    async with client_of("http://localhost/graphql", transport=replies) as client:
        with pytest.raises(BoltRequestError, match="commandId: 8"):
            await client.get_bolt_command_resources([7, 8])


async def test_one_refusal_among_many_does_not_affect_the_others(client_of):
    """A caller that wants errors gets what is available, and an error for each of the rest."""
    replies = _replying(
        {
            "a0": {"ok": True, "url": "https://x.test/1"},
            "a1": {"ok": False, "url": None},
            "a2": {"ok": True, "url": "https://x.test/3"},
        }
    )
    errors: dict[int, BoltError] = {}
    async with client_of("http://localhost/graphql", transport=replies) as client:
        urls = await client.get_bolt_resource_urls([1, 2, 3], errors=errors)
    assert urls == {1: "https://x.test/1", 3: "https://x.test/3"}
    assert "resourceId: 2" in str(errors.pop(2))
    assert errors == {}


async def test_one_empty_reply_among_many_does_not_affect_the_others(client_of):
    """It is requested again, as it would be alone; in the end, the others are still there."""
    replies = _replying({"a0": {"ok": None, "url": None}, "a1": {"ok": True, "url": "https://x.test/2"}})
    errors: dict[int, BoltError] = {}
    policy = RetryPolicy(attempts=2, first_wait_seconds=0)
    async with client_of("http://localhost/graphql", transport=replies, retry_policy=policy) as client:
        assert await client.get_bolt_resource_urls([1, 2], errors=errors) == {2: "https://x.test/2"}
        with pytest.raises(BoltUnavailable, match="only nulls"):
            await client.get_bolt_resource_urls([1, 2])
    assert isinstance(errors[1], BoltUnavailable)


async def test_a_runs_schedule_is_found_although_another_schedule_fails(client_of):
    """A schedule without a list of runs does not hide the schedule that is searched for."""

    def answer(request: httpx.Request) -> httpx.Response:
        if "listBoltSchedules" in request.content.decode():
            schedules = {"schedules": [{"name": name} for name in "abc"], "totalCount": 3}
            return httpx.Response(200, json={"data": {"listBoltSchedules": schedules}})
        runs = {"ok": True, "runs": [{"id": 7, "state": "SUCCESS"}]}
        replies = {"a0": {"ok": False, "runs": None}, "a1": runs, "a2": {"ok": True, "runs": []}}
        return httpx.Response(200, json={"data": replies})

    transport = httpx.MockTransport(answer)
    async with client_of("http://localhost/graphql", transport=transport) as client:
        assert await client.find_schedule_of_run(7) == "b"
