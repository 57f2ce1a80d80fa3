"""The most important names have an example in their docstring."""

from __future__ import annotations

import ast

from support.docstrings import EXAMPLES, FLOWS


def test_the_most_important_names_have_an_example():
    """The pattern that finds the examples must not miss them by mistake."""
    names = {each.name for each in EXAMPLES}
    classes = {
        *("bolt_client.BoltClient", "credentials.ParadimeCredentials", "credentials_check.CredentialsCheck"),
        *("schedule.BoltSchedule", "run.BoltRun", "results.BoltRunResult", "errors.BoltError"),
        "dbt.BoltDbtResult",
    }
    flows = {
        *("run_schedule", "run_pipeline", "archive_run", "retry_run", "cancel_run", "trigger_only"),
        *("list_schedules", "inspect_run", "sweep_orphans", "watch_runs", "report_run"),
    }
    tasks = {
        f"{module}.{node.name}"
        for module in ("runs", "schedules", "files")
        for node in ast.parse((FLOWS / "tasks" / f"{module}.py").read_text()).body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")
    }
    assert len(tasks) > 10
    assert (classes | {f"{name}.{name}" for name in flows} | tasks) - names == set()
