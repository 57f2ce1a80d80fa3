"""A pipeline's definition, its next steps, and its page: decisions without I/O."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError as RefusedByTheForm
from prefect.utilities.schema_tools.validation import validate
from pydantic import ValidationError

from paradime_blocks import BoltPipelineFailed, BoltRequestError, ParadimeCredentials
from paradime_flows.pipeline import MOST_STEPS, Pipeline, Step, check_steps, problems_of
from paradime_flows.pipelines.plan import StepOutcome, StepState, carried_over, decide
from paradime_flows.pipelines.report import headline, render_pipeline, why_not
from paradime_flows.run_pipeline import run_pipeline

NOWHERE = ParadimeCredentials(api_endpoint="http://127.0.0.1:1/graphql", api_key="k", api_secret="s")
W, S, F, N = StepState.WAITING, StepState.SUCCEEDED, StepState.FAILED, StepState.NOT_RUN

DIAMOND = [
    Step(schedule_name="a"),
    Step(schedule_name="b", after=["a"]),
    Step(schedule_name="c", after=["a"]),
    Step(schedule_name="d", after=["b", "c"]),
    Step(schedule_name="e"),
]


CHAIN = [Step(schedule_name="a"), Step(schedule_name="b", after=["a"]), Step(schedule_name="c", after=["b"])]


def outcomes(states: str) -> dict[str, StepOutcome]:
    """The outcomes of the diamond's steps, one letter of `wrsfcn` for each."""
    letters = dict(zip("wrsfcn", StepState, strict=True))
    return {
        name: outcome.model_copy(update={"state": letters[letter]})
        for (name, outcome), letter in zip(carried_over(DIAMOND, {}).items(), states, strict=True)
    }


# The definition


def test_a_steps_default_name_is_its_schedules() -> None:
    """`after` refers to this name."""
    assert Step(schedule_name="a").key == "a"
    assert Step(schedule_name="a", name="b").key == "b"


@pytest.mark.parametrize(
    "steps, message",
    [
        pytest.param(
            [{"schedule_name": "a"}, {"schedule_name": "a"}], "Two steps have the name 'a'", id="double"
        ),
        pytest.param(
            [{"schedule_name": "a", "after": ["x"]}], "after 'x', but no step has that name", id="unknown"
        ),
        pytest.param([{"schedule_name": "a", "after": ["a"]}], "cycle: a → a", id="itself"),
        pytest.param(
            [
                {"schedule_name": "a", "after": ["c"]},
                {"schedule_name": "b", "after": ["a"]},
                {"schedule_name": "c", "after": ["b"]},
            ],
            "form a cycle",
            id="cycle",
        ),
    ],
)
def test_contradictory_steps_are_refused(steps: list[dict[str, Any]], message: str) -> None:
    """`run_pipeline` refuses them before anything is sent, `Pipeline` with pydantic's error."""
    with pytest.raises(BoltRequestError, match=message):
        check_steps([Step(**step) for step in steps])
    with pytest.raises(ValidationError, match=message):
        Pipeline(steps=steps)


def test_an_unknown_key_of_a_step_is_refused() -> None:
    """A typing error must not be ignored."""
    with pytest.raises(ValidationError, match="depends_on"):
        Step(schedule_name="a", depends_on=["b"])  # type: ignore[call-arg]


def test_an_invalid_pattern_is_refused() -> None:
    """The check is in the step, so that the form shows the error beside the field."""
    with pytest.raises(ValidationError, match=r"non_retryable_errors.0\n.*not a valid regular expression"):
        Step(schedule_name="a", non_retryable_errors=["("])


def test_one_schedule_may_be_several_steps_by_name() -> None:
    """They can have other commands, say; they run one after the other if necessary."""
    steps = [
        Step(schedule_name="a", name="seed", commands=["dbt seed"]),
        Step(schedule_name="a", name="run", after=["seed"]),
    ]
    assert problems_of(steps) == []


def test_yaml_means_the_same_as_python(tmp_path) -> None:
    """It can be a file of steps, or of all parameters, and it can be written again."""
    pipeline = Pipeline(
        steps=[
            {"schedule_name": "extract", "retries": 1},
            {"schedule_name": "publish", "after": ["extract"], "commands": ["dbt run"]},
        ],
        on_failure="finish",
    )
    path = tmp_path / "nightly.yaml"
    path.write_text(pipeline.to_yaml())
    assert Pipeline.from_yaml(path) == pipeline
    assert Pipeline.from_yaml(str(path)) == pipeline
    assert Pipeline.from_yaml("- schedule_name: a\n- {schedule_name: b, after: [a]}\n").steps[1].after == [
        "a"
    ]
    assert pipeline.parameters()["steps"][0] == {"schedule_name": "extract", "retries": 1}


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param("steps: [\n", "cannot be read", id="no YAML"),
        pytest.param(
            "steps:\n- {schedule_name: a, after: [x]}\n", "but no step has that name", id="an unknown step"
        ),
        pytest.param("steps:\n- {schedule: a}\n", "steps.0.schedule", id="unknown key"),
        pytest.param("just\na text\n", "not a valid pipeline", id="no pipeline"),
    ],
)
def test_the_error_for_invalid_yaml_says_what_is_wrong(text: str, message: str) -> None:
    """The error is one of ours, and names the place."""
    with pytest.raises(BoltRequestError, match=message):
        Pipeline.from_yaml(text)
    with pytest.raises(BoltRequestError, match="cannot be read"):
        Pipeline.from_yaml("no/such/file.yaml")


def test_a_schedule_comes_after_the_one_that_it_defers_to(monkeypatch) -> None:
    """It is the only order among schedules that Bolt knows; circles are broken."""
    from paradime_blocks import BoltClient
    from paradime_blocks.models import BoltScheduleSummary

    async def schedules(self: BoltClient, **_options: Any) -> Any:
        for name, earlier in (("ci", "daily"), ("daily", None), ("x", "y"), ("y", "x")):
            deferred = {"enabled": True, "deferredScheduleName": earlier} if earlier else None
            yield BoltScheduleSummary.model_validate({"name": name, "deferredSchedule": deferred})

    monkeypatch.setattr(BoltClient, "iter_bolt_schedules", schedules)
    found = {step.key: step.after for step in Pipeline.from_bolt(NOWHERE).steps}
    assert found == {"ci": ["daily"], "daily": [], "x": ["y"], "y": []}


@pytest.fixture(params=[MOST_STEPS, MOST_STEPS + 1])
def many_schedules(request, monkeypatch) -> int:
    """The number of schedules in Bolt; each defers to the one before it."""
    from paradime_blocks import BoltClient
    from paradime_blocks.models import BoltScheduleSummary

    listed = [
        BoltScheduleSummary.model_validate(
            {
                "name": f"s{number}",
                "deferredSchedule": {"enabled": True, "deferredScheduleName": f"s{number - 1}"},
            }
        )
        for number in range(request.param)
    ]

    async def schedules(self: BoltClient, **_options: Any) -> Any:
        for each in listed:
            yield each

    monkeypatch.setattr(BoltClient, "iter_bolt_schedules", schedules)
    return request.param


async def test_too_many_schedules_are_refused_as_a_pipeline(many_schedules: int) -> None:
    """500 in a row make a pipeline; 501 are too many, which is one of our errors."""
    if many_schedules == MOST_STEPS:
        assert [step.after for step in (await Pipeline.afrom_bolt(NOWHERE)).steps][-1] == ["s498"]
        return
    with pytest.raises(BoltRequestError, match="501 active schedules; a pipeline has at most 500 steps"):
        await Pipeline.afrom_bolt(NOWHERE)


# The next steps


@pytest.mark.parametrize(
    "states, on_failure, start, dropped, stop",
    [
        pytest.param("wwwww", "stop", ["a", "e"], [], False, id="a step without dependencies starts"),
        pytest.param("rwwwr", "stop", [], [], False, id="a step after a running one waits"),
        pytest.param("swwws", "stop", ["b", "c"], [], False, id="both arms start together"),
        pytest.param("ssrws", "stop", [], [], False, id="the tip waits for both arms"),
        pytest.param("sssws", "stop", ["d"], [], False, id="the tip starts after both"),
        pytest.param(
            "sfrwr", "stop", [], ["d"], True, id="stop: nothing starts, running steps are cancelled"
        ),
        pytest.param(
            "sfrww", "finish", [], ["d", "e"], False, id="finish: nothing starts, running steps continue"
        ),
        pytest.param(
            "sfrww", "continue", ["e"], ["d"], False, id="continue: only dependent steps are dropped"
        ),
        pytest.param(
            "fwwwr",
            "continue",
            [],
            ["b", "c", "d"],
            False,
            id="continue: indirectly dependent steps are dropped",
        ),
        pytest.param("scwww", "stop", [], ["c", "d", "e"], True, id="a canceled step is a failure"),
        pytest.param("sssss", "stop", [], [], False, id="nothing is left"),
    ],
)
def test_the_next_steps(
    states: str, on_failure: Any, start: list[str], dropped: list[str], stop: bool
) -> None:
    """From the outcomes follows what to start, what to drop, and whether to stop."""
    decision = decide(DIAMOND, outcomes(states), on_failure=on_failure, max_parallel=10)
    assert decision.start == start
    assert sorted(decision.drop) == dropped
    assert (decision.stop is not None) is stop


def test_no_more_steps_start_than_allowed() -> None:
    """Running steps count."""
    assert decide(DIAMOND, outcomes("wwwww"), on_failure="stop", max_parallel=1).start == ["a"]
    assert decide(DIAMOND, outcomes("swwwr"), on_failure="stop", max_parallel=2).start == ["b"]


@pytest.mark.parametrize(
    "on_failure, states, start, dropped",
    [
        pytest.param("stop", "wwwww", ["e"], [], id="it comes first"),
        pytest.param("continue", "fwwww", ["e"], ["b", "c", "d"], id="with a failed step"),
        pytest.param("finish", "fwwww", ["e"], ["b", "c", "d"], id="finish: it may finish"),
        pytest.param("stop", "fwwww", [], ["b", "c", "d", "e"], id="stop: it may not"),
        pytest.param("stop", "rwwww", ["e"], [], id="it is running already and needs no free place"),
    ],
)
def test_a_run_from_an_earlier_attempt_is_resumed_at_once(
    on_failure: Any, states: str, start: list[str], dropped: list[str]
) -> None:
    """Otherwise no one would watch its run."""
    decision = decide(DIAMOND, outcomes(states), on_failure=on_failure, max_parallel=1, under_way={"e"})
    assert decision.start == start
    assert sorted(decision.drop) == dropped


def test_a_rerun_keeps_succeeded_steps() -> None:
    """It starts with the others."""
    found = carried_over(DIAMOND, outcomes("ssfns"))
    assert [outcome.state for outcome in found.values()] == [S, S, W, W, S]
    assert [outcome.reused for outcome in found.values()] == [True, True, False, False, True]


def test_a_resumed_attempt_keeps_failed_steps() -> None:
    """It is the same attempt, but failures from the attempt before are tried again."""
    before = {
        name: outcome.model_copy(update={"attempt": "1.0" if name == "e" else "2.0"})
        for name, outcome in outcomes("sfrnf").items()
    }
    found = carried_over(DIAMOND, before, attempt="2.0")
    assert [outcome.state for outcome in found.values()] == [S, F, W, N, W]
    assert [name for name, outcome in found.items() if outcome.reused] == ["a"]


def test_a_changed_step_and_what_follows_it_run_again() -> None:
    """Its success was that of other commands."""
    changed = [DIAMOND[0], Step(schedule_name="b", after=["a"], commands=["dbt run"]), *DIAMOND[2:]]
    found = carried_over(changed, outcomes("sssss"))
    assert [name for name, outcome in found.items() if not outcome.reused] == ["b", "d"]
    patient = [DIAMOND[0], Step(schedule_name="b", after=["a"], retries=3), *DIAMOND[2:]]
    assert all(outcome.reused for outcome in carried_over(patient, outcomes("sssss")).values())


# The page


def test_the_page_shows_each_step_and_escapes_all_text() -> None:
    """Names and messages cannot break the table, the graph or the page."""
    hostile = 'x"] --> s9["<script>|`'
    steps = [Step(schedule_name="a"), Step(schedule_name=hostile, after=["a"])]
    began = datetime(2026, 11, 24, 3, 0, tzinfo=timezone.utc)
    found = {
        "a": StepOutcome(
            name="a", state=S, run_id=76001, started_at=began, ended_at=began + timedelta(seconds=90)
        ),
        hostile: StepOutcome(name=hostile, state=F, message="no | way\n```\n# h"),
    }
    page = render_pipeline("nightly", steps, found)
    assert page.startswith("# ❌ Pipeline nightly\n\n2 steps: 1 succeeded, 1 failed.\n\na → x")
    assert "2026-11-24 03:00:00" in page
    assert "[76001](https://app.paradime.io/bolt/run_id/76001)" in page
    assert "s0 --> s1" in page
    assert "<script>" not in page
    assert "s9[" not in page
    assert [line for line in page.splitlines() if line.startswith("```")] == ["```mermaid", "```"]
    assert "\n# h" not in page


def test_the_page_of_a_pipeline_without_a_name_is_readable_in_both_interfaces() -> None:
    """The older interface cuts off wide tables and shows the graph as text: long texts stand below the table."""
    found = outcomes("sfnnr")
    found["b"].message = "dbt build: model revenue: " + "x" * 300
    page = render_pipeline("pipeline", DIAMOND, found)
    assert page.startswith("# ❌ Pipeline\n")
    order, table, *reasons = page.split("\n\n")[2:]
    assert order == "a → b; a → c; b, c → d"
    assert "xxx" not in table
    assert reasons[:2] == [
        f"- **b**: failed. dbt build: model revenue: {'x' * 300}",
        "## Graph",
    ]
    assert "\n\na → b → c\n\n" in render_pipeline(
        "pipeline", CHAIN, {s.key: StepOutcome(name=s.key) for s in CHAIN}
    )


def test_a_pipelines_error_begins_with_the_step_that_failed() -> None:
    """Prefect's pages show only the beginning of a state's message. The error has all steps."""
    found = outcomes("nfncs")
    found["b"].message = "dbt build: model revenue: Database Error."
    why, steps = why_not("pipeline", list(found.values()))
    error = BoltPipelineFailed(why, steps=steps)
    assert error.in_one_line().startswith(
        "Step 'b' failed: dbt build: model revenue: Database Error. 5 steps: "
    )
    assert [step.split(":")[0] for step in error.steps] == ["a", "b", "c", "d"]
    assert "- d: canceled." in str(error)


def test_a_pipelines_error_names_the_pipeline_if_it_has_a_name() -> None:
    """An alert about a failed flow run has only this text."""
    why, _ = why_not("nightly", list(outcomes("nfncs").values()))
    assert why.startswith("Step 'b' of pipeline 'nightly' failed: no reason is known. 5 steps: ")


@pytest.mark.parametrize("chain", [True, False])
def test_the_order_of_very_many_steps_is_only_in_the_graph(chain: bool) -> None:
    """With hundreds of steps, the line would be most of the page."""

    def page(arrows: int) -> str:
        keys = [f"step-{n}" for n in range(arrows + 1)]
        steps = [
            Step(schedule_name=key, after=([keys[n - 1]] if chain else [keys[0]]) if n else [])
            for n, key in enumerate(keys)
        ]
        return render_pipeline("nightly", steps, {key: StepOutcome(name=key) for key in keys})

    assert page(30).count(" → ") == 30
    assert " → " not in page(31)


def test_the_headline_counts_the_outcomes() -> None:
    """The order is by importance to a person."""
    assert (
        headline(list(outcomes("sfnnr").values())) == "5 steps: 1 succeeded, 1 failed, 1 running, 2 not run."
    )


# The form in Prefect's UI


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """The parameter schema stored with a deployment: the UI makes its form from it, and the API checks with it."""
    return parameter_schema(run_pipeline).model_dump_for_openapi()


def test_the_form_accepts_a_pipeline(form: dict[str, Any]) -> None:
    """Otherwise the refusals below could have another cause than the one they name."""
    steps = [{"schedule_name": "a"}, {"schedule_name": "b", "after": ["a"], "retries": 2}]
    validate({"steps": steps}, form, raise_on_error=True)


def test_the_form_explains_every_field(form: dict[str, Any]) -> None:
    """These are the fields of the pipeline, of a step, and of a command."""
    shown = {
        "": form,
        **{name: form["definitions"][name] for name in ("Step", "Command", "StepSafety", "LogsAndArchive")},
    }
    bare = [
        f"{of}.{name}"
        for of, schema in shown.items()
        for name, field in schema["properties"].items()
        if "$ref" not in field and not str(field.get("description", "")).strip().endswith((".", "?"))
    ]
    assert bare == []
    assert set(shown["Step"]["properties"]) == set(Step.model_fields)
    assert form["required"] == ["steps"]
    assert form["properties"]["on_failure"]["enum"] == ["stop", "finish", "continue"]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="no steps"),
        pytest.param({"steps": []}, id="an empty list"),
        pytest.param({"steps": [{"schedule_name": "a", "depends_on": ["b"]}]}, id="an unknown field"),
        pytest.param({"steps": [{"schedule_name": " "}]}, id="a blank name"),
        pytest.param({"steps": [{"schedule_name": "a", "after": "b"}]}, id="a text for a list"),
        pytest.param({"steps": [{"schedule_name": "a", "retries": 21}]}, id="too many retries"),
        pytest.param({"steps": [{"schedule_name": "a", "timeout_seconds": 0}]}, id="no time"),
        pytest.param({"steps": [{"schedule_name": "a", "commands": []}]}, id="no command"),
        pytest.param({"steps": [{"schedule_name": "a"}], "on_failure": "panic"}, id="an unknown mode"),
        pytest.param({"steps": [{"schedule_name": "a"}], "max_parallel": 0}, id="no room"),
    ],
)
def test_the_form_refuses_nonsense(form: dict[str, Any], given: dict[str, Any]) -> None:
    """That is before a flow run is created. Errors between fields, such as a circle, are refused when it starts."""
    with pytest.raises(RefusedByTheForm):
        validate(given, form, raise_on_error=True)
