"""One function for each root field of the schema. The function takes the field's arguments and returns a dictionary."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from .clock import as_text
from .planning import Refused, RunRequest, Schedule, looks_like_commit
from .runs import SimulatedRunCommand
from .state import Workspace

Resolver = Callable[..., dict[str, Any]]

_LONGEST_LIST = 1000


class Resolvers:
    """The operations of the API. Each call runs under the workspace's lock: see `GraphQLApi.act`."""

    def __init__(
        self,
        workspace: Workspace,
        resource_url: Callable[[int, str], str],
        *,
        unfinished_end: str | None = "",
        log_batch_lines: int = 500,
    ) -> None:
        """Serve a workspace.

        Args:
            workspace: The workspace to serve.
            resource_url: Makes a signed URL from a resource's id and path.
            unfinished_end: The `endDttm` of a command that is still running.
            log_batch_lines: How many lines one call of `boltCommandLogs` returns at most.
        """
        self._workspace = workspace
        self._resource_url = resource_url
        self._unfinished_end = unfinished_end
        self._log_batch_lines = log_batch_lines

    def root(self) -> dict[str, Resolver]:
        """Return the functions for the root fields, in graphql-core's form. The key is the name of the root field."""
        return {
            "boltRunStatus": self._run_status,
            "boltCommand": self._command,
            "boltCommandLogs": self._command_logs,
            "boltResourceUrl": self._resource,
            "listBoltSchedules": self._list_schedules,
            "boltScheduleName": self._schedule,
            "listBoltRuns": self._list_runs,
            "triggerBoltRun": self._trigger,
            "cancelBoltRun": self._cancel,
            "retryBoltRun": self._retry,
            "retryAllBoltRun": self._retry_all,
            "retryBoltRunFromFailure": self._retry_from_failure,
            "suspendBoltSchedule": self._suspend,
        }

    # Reads

    def _run_status(self, _info: object, *, runId: int) -> dict[str, Any]:  # noqa: N803 - names of the API.
        run, now = self._workspace.run(runId), self._workspace.clock.seconds()
        commands = [self._command_fields(command) for command in run.commands(now)]
        return {"ok": True, "state": run.state(now), "commands": commands}

    def _command(self, _info: object, *, commandId: int) -> dict[str, Any]:  # noqa: N803
        command = self._workspace.command(commandId)
        resources = [{"id": resource.id, "path": resource.path} for resource in command.resources]
        fields = self._command_fields(command)
        return {**fields, "ok": True, "scheduleRunId": command.run_id, "resources": resources}

    def _command_fields(self, command: SimulatedRunCommand) -> dict[str, Any]:
        return {
            "id": command.id,
            "command": command.command,
            "startDttm": _date(command.started_at),
            "endDttm": _date(command.ended_at) if command.ended_at else self._unfinished_end,
            "stdout": command.stdout,
            "stderr": command.stderr,
            "returnCode": command.return_code,
        }

    def _command_logs(
        self,
        _info: object,
        *,
        commandId: int,  # noqa: N803
        cursor: str | None = None,
    ) -> dict[str, Any]:
        command = self._workspace.command(commandId)
        # Clients may not rely on the form of a cursor: the vendor calls the cursor opaque. Here, the cursor counts the
        # lines of each stream.
        match = re.fullmatch(r"(\d+):(\d+)", cursor or "0:0")
        if match is None:
            message = f"Not a cursor: {cursor!r}."
            raise Refused(message)
        out, err = command.stdout.splitlines(keepends=True), command.stderr.splitlines(keepends=True)
        out_from, err_from = int(match[1]), int(match[2])
        out_now = out[out_from : out_from + self._log_batch_lines]
        err_now = err[err_from : err_from + self._log_batch_lines - len(out_now)]
        out_next, err_next = out_from + len(out_now), err_from + len(err_now)
        lines = [{"stream": "STDOUT", "line": line} for line in out_now]
        lines += [{"stream": "STDERR", "line": line} for line in err_now]
        all_given = out_next >= len(out) and err_next >= len(err)
        finished = command.ended_at is not None and all_given
        return {"lines": lines, "cursor": f"{out_next}:{err_next}", "finished": finished}

    def _resource(self, _info: object, *, resourceId: int) -> dict[str, Any]:  # noqa: N803
        resource = self._workspace.resource(resourceId)
        return {"ok": True, "url": self._resource_url(resource.id, resource.path)}

    def _list_schedules(
        self,
        _info: object,
        *,
        offset: int,
        limit: int,
        showInactive: bool,  # noqa: N803
        **optional: Any,
    ) -> dict[str, Any]:
        _check_page(offset, limit, longest=None)
        suspended = (optional.get("filter") or {}).get("suspended")
        schedules = [
            schedule
            for schedule in self._workspace.schedules()
            # The flag asks for the inactive schedules instead of the active ones, not in addition to them.
            if schedule.active is not showInactive and suspended in (None, schedule.suspended)
        ]
        page = [self._schedule_fields(schedule) for schedule in schedules[offset : offset + limit]]
        return {"schedules": page, "totalCount": len(schedules)}

    def _schedule_fields(self, schedule: Schedule) -> dict[str, Any]:
        now = self._workspace.clock.now()
        runs = self._workspace.runs(schedule.name)
        last = runs[-1] if runs else None
        return {
            "id": schedule.id,
            "uuid": schedule.uuid,
            "name": schedule.name,
            "slug": schedule.slug,
            "schedule": schedule.cron,
            "owner": schedule.owner,
            "lastRunAt": as_text(last.created) if last else None,
            "lastRunState": last.state(now.timestamp()) if last else None,
            "nextRunAt": _next_run(schedule, now),
            "source": schedule.source,
            "suspended": schedule.suspended,
            "turboCi": None,
            "deferredSchedule": None,
            "commands": [command.command for command in schedule.commands],
            "gitBranch": schedule.branch,
            "slackOn": [],
            "slackNotify": [],
            "emailOn": ["failed"],
            "emailNotify": [schedule.owner],
            "notifications": {
                "emailNotifications": [{"channel": schedule.owner, "events": ["failed"]}],
                "slackNotifications": [],
                "msTeamsNotifications": [],
            },
        }

    def _schedule(self, _info: object, **which: str | None) -> dict[str, Any]:
        schedule = self._workspace.schedule(_name(which))
        runs = self._workspace.runs(schedule.name)
        return {
            "ok": True,
            "latestRunId": runs[-1].id if runs else None,
            "commands": [command.command for command in schedule.commands],
            "owner": schedule.owner,
            "schedule": schedule.cron,
            "uuid": schedule.uuid,
            "source": schedule.source,
            "suspended": schedule.suspended,
        }

    def _list_runs(self, _info: object, *, offset: int, limit: int, **which: str | None) -> dict[str, Any]:
        _check_page(offset, limit, longest=_LONGEST_LIST)
        now = self._workspace.clock.seconds()
        # Without a slug, Bolt lists the runs of all schedules.
        newest_first = self._workspace.runs(_name(which) if any(which.values()) else None)[::-1]
        runs = []
        for run in newest_first[offset : offset + limit]:
            end = run.end()
            runs.append(
                {
                    "id": run.id,
                    "state": run.state(now),
                    "actor": run.actor,
                    "actorEmail": None,
                    "startDttm": as_text(run.created),
                    "endDttm": as_text(end.at) if now >= end.at else None,
                    "parentScheduleRunId": run.parent_run_id,
                    "gitInfo": {
                        "branch": run.branch,
                        "commitHash": _commit(run.branch),
                        "pullRequestId": None if run.pr_number is None else str(run.pr_number),
                    },
                }
            )
        return {"ok": True, "runs": runs}

    # Mutations

    def _trigger(self, _info: object, **arguments: Any) -> dict[str, Any]:
        configs: Iterable[dict[str, Any]] | None = arguments.get("commandConfigs")
        request = RunRequest(
            commands=arguments.get("commands"),
            branch=arguments.get("branch"),
            pr_number=arguments.get("prNumber"),
            reason=arguments.get("reason"),
            command_configs=None
            if configs is None
            else [(config["command"], config.get("continueOnError")) for config in configs],
            continue_on_error=arguments.get("continueOnError"),
        )
        return {"runId": self._workspace.trigger(_name(arguments), request).id}

    def _cancel(self, _info: object, *, scheduleRunId: int) -> dict[str, Any]:  # noqa: N803
        return {"ok": self._workspace.cancel(scheduleRunId)}

    def _retry(self, _info: object, *, scheduleRunId: int) -> dict[str, Any]:  # noqa: N803
        return {"runId": self._workspace.retry(scheduleRunId).id}

    def _retry_all(self, _info: object, *, scheduleRunId: int) -> dict[str, Any]:  # noqa: N803
        return {"runId": self._workspace.retry(scheduleRunId, everything=True).id}

    def _retry_from_failure(self, _info: object, **which: str | None) -> dict[str, Any]:
        return {"runId": self._workspace.retry_latest_failure(_name(which)).id}

    def _suspend(self, _info: object, *, suspend: bool, **which: str | None) -> dict[str, Any]:
        self._workspace.suspend(_name(which), suspend=suspend)
        return {"ok": True}


def _name(which: dict[str, Any]) -> str:
    """Return the `slug` or the `scheduleName` of a request. Both of them identify the schedule."""
    given = [name for name in (which.get("slug"), which.get("scheduleName")) if name]
    if len(given) != 1:
        message = "Give exactly one of `slug` and `scheduleName`."
        raise Refused(message)
    return str(given[0])


def _check_page(offset: int, limit: int, longest: int | None) -> None:
    if offset < 0 or limit < 1 or (longest is not None and limit > longest):
        upper = "" if longest is None else f" and at most {longest}"
        message = f"offset must be at least 0 and limit at least 1{upper}: got {offset} and {limit}."
        raise Refused(message)


def _date(moment: datetime) -> str:
    return as_text(moment.timestamp())


def _commit(branch: str) -> str:
    if looks_like_commit(branch):
        return branch
    return hashlib.sha1(branch.encode(), usedforsecurity=False).hexdigest()


def _next_run(schedule: Schedule, now: datetime) -> str | None:
    """Return when a daily schedule would run next; None for other schedules. The simulator itself starts no run."""
    match = re.fullmatch(r"(\d{1,2}) (\d{1,2}) \* \* \*", schedule.cron)
    if match is None or schedule.suspended:
        return None
    then = now.replace(hour=int(match[2]), minute=int(match[1]), second=0, microsecond=0)
    return _date(then if then > now else then + timedelta(days=1))
