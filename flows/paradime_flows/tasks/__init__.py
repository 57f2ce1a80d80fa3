"""Prefect tasks for your own flows: one task for each operation of Bolt's API.

You can await each task, call it from sync code, submit it with `.submit()` and map it with `.map()`. A flow run owns
the Bolt runs that it triggers with `trigger_bolt_run`. If Prefect retries the flow run, the retry resumes these Bolt
runs. A cancel of the flow run cancels a Bolt run while `wait_for_bolt_run` waits for the Bolt run. If the Bolt runs
should also be cancelled at other times and after a crash, set the hook `paradime_flows.hooks.cancel_owned_runs` on the
flow.
"""

from paradime_flows.tasks.files import (
    adownload_bolt_resource,
    aget_bolt_resource_url,
    alatest_artifact,
    alatest_artifact_url,
    alatest_manifest,
    download_bolt_resource,
    get_bolt_resource_url,
    latest_artifact,
    latest_artifact_url,
    latest_manifest,
)
from paradime_flows.tasks.runs import (
    aget_bolt_command,
    aget_bolt_command_logs,
    aget_bolt_run,
    alist_bolt_runs,
    get_bolt_command,
    get_bolt_command_logs,
    get_bolt_run,
    list_bolt_runs,
)
from paradime_flows.tasks.schedules import (
    aget_bolt_schedule,
    alist_bolt_schedules,
    asuspend_bolt_schedule,
    get_bolt_schedule,
    list_bolt_schedules,
    suspend_bolt_schedule,
)
from paradime_flows.tasks.trigger import (
    aretry_bolt_run,
    aretry_bolt_schedule,
    atrigger_bolt_run,
    retry_bolt_run,
    retry_bolt_schedule,
    trigger_bolt_run,
)
from paradime_flows.tasks.wait import (
    acancel_bolt_run,
    await_for_bolt_run,
    cancel_bolt_run,
    wait_for_bolt_run,
)

__all__ = [
    "acancel_bolt_run",
    "adownload_bolt_resource",
    "aget_bolt_command",
    "aget_bolt_command_logs",
    "aget_bolt_resource_url",
    "aget_bolt_run",
    "aget_bolt_schedule",
    "alatest_artifact",
    "alatest_artifact_url",
    "alatest_manifest",
    "alist_bolt_runs",
    "alist_bolt_schedules",
    "aretry_bolt_run",
    "aretry_bolt_schedule",
    "asuspend_bolt_schedule",
    "atrigger_bolt_run",
    "await_for_bolt_run",
    "cancel_bolt_run",
    "download_bolt_resource",
    "get_bolt_command",
    "get_bolt_command_logs",
    "get_bolt_resource_url",
    "get_bolt_run",
    "get_bolt_schedule",
    "latest_artifact",
    "latest_artifact_url",
    "latest_manifest",
    "list_bolt_runs",
    "list_bolt_schedules",
    "retry_bolt_run",
    "retry_bolt_schedule",
    "suspend_bolt_schedule",
    "trigger_bolt_run",
    "wait_for_bolt_run",
]
