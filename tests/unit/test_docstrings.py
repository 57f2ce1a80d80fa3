"""What readers look up first has an example in its docstring."""

from __future__ import annotations

import ast

from support.docstrings import EXAMPLES, FLOWS


def test_what_readers_look_up_first_has_an_example():
    """And the examples are not none by a slip of the pattern that finds them."""
    names = {each.name for each in EXAMPLES}
    classes = {
        *("bolt_client.BoltClient", "credentials.ParadimeCredentials", "credentials.CredentialsCheck"),
        *("schedule.BoltSchedule", "run.BoltRun", "models.BoltRunResult", "errors.BoltError"),
    }
    flows = {
        *("run_schedule", "run_pipeline", "archive_run", "retry_run", "cancel_run", "trigger_only"),
        *("list_schedules", "inspect_run", "sweep_orphans"),
    }
    tree = ast.parse((FLOWS / "read_tasks.py").read_text())
    tasks = {
        f"read_tasks.{node.name}"
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")
    }
    assert len(tasks) > 10
    assert (classes | {f"{name}.{name}" for name in flows} | tasks) - names == set()
