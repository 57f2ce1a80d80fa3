"""The file of automations: what it can say, and what it must not."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.server.utilities.user_templates import validate_user_template

from paradime_blocks import BoltRequestError
from paradime_flows.automations.messages import BODIES, SUBJECTS
from paradime_flows.automations.rules import NAME_PREFIX, Notify, Rules, Start

FILE = Path(__file__).resolve().parents[2] / "deployments" / "automations.yaml"


def rules(text: str) -> Rules:
    Path("automations.yaml").write_text(text, encoding="utf-8")
    return Rules.from_yaml("automations.yaml")


def test_the_example_is_valid_with_and_without_its_comments():
    """A person removes the comment signs."""
    text = FILE.read_text(encoding="utf-8")
    assert [one.on for one in rules(text).notify] == [["failed", "overdue", "source-stale"]]
    opened = text.replace("start: []", "start:").replace("  # - ", "  - ").replace("  #   ", "    ")
    found = rules(opened)
    assert [one.block for one in found.notify] == [
        "slack-webhook/data-team",
        "ms-teams-webhook/finance",
        "sendgrid-email/on-call",
    ]
    assert [(one.after, one.schedule) for one in found.start] == [("orders", "publish")]


@pytest.mark.parametrize(
    "text, why",
    [
        ("notify:\n  - block: slack", "block"),
        ("notify:\n  - block: slack-webhook/x\n    on: [exploded]", "on"),
        ("notify:\n  - block: slack-webhook/x\n    webhook: https://x", "webhook"),
        ("start:\n  - schedule: a\n    after: a", "would start itself"),
        ("start: [", "cannot be read"),
    ],
)
def test_a_mistake_is_named(text, why):
    """Nothing is changed in Prefect then."""
    with pytest.raises(BoltRequestError, match=why):
        rules(text)


def test_a_missing_file_is_named():
    with pytest.raises(BoltRequestError, match=r"nowhere\.yaml cannot be read"):
        Rules.from_yaml("nowhere.yaml")


def test_each_rule_has_one_automation_for_each_event():
    """The name says which, so that `apply` finds it again."""
    block, deployment = uuid4(), uuid4()
    found = Rules(
        notify=[Notify(block="slack-webhook/x", on=["failed", "failed", "overdue"], schedules=["a", "b"])],
        start=[Start(schedule="b", after="a")],
    ).automations({"slack-webhook/x": block}, {"run-schedule/bolt": deployment})
    assert [one.name for one in found] == [
        f"{NAME_PREFIX}slack-webhook/x on failed of a, b",
        f"{NAME_PREFIX}slack-webhook/x on overdue of a, b",
        f"{NAME_PREFIX}start b after a completed",
    ]
    triggers = [one.trigger.model_dump(mode="json", include={"expect", "match"}) for one in found]
    assert triggers[0] == {
        "expect": ["paradime.bolt-run.failed"],
        "match": {"prefect.resource.id": "paradime.bolt-run.*", "schedule": ["a", "b"]},
    }


@pytest.mark.parametrize("template", [*SUBJECTS.values(), *BODIES.values()])
def test_prefect_accepts_the_templates_of_the_messages(template):
    """Prefect limits what a template may do."""
    validate_user_template(template)
