"""Every GraphQL operation of Bolt that this package uses, each written once.

The vendor's API page describes some of the operations; these operations select the same fields as that page. The other
operations are known from the vendor's own clients. An older backend may not have these other operations.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paradime_blocks.client.inputs import TRIGGER_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Operation:
    """One GraphQL operation.

    Attributes:
        name: The name of the operation in the document.
        field: The root field that the operation asks for.
        selection: The fields that the operation selects.
        arguments: The GraphQL type of each argument; the key is the argument's name. All types are non-null, since a
            non-null variable is valid for a nullable argument, but a nullable variable is not valid for a non-null
            argument.
        kind: Query or mutation.
        resend: Whether the operation has the same effect if it is sent twice as if it is sent once.
        newer: Further fields that only newer backends have. The client asks for these fields until the backend refuses
            them.
    """

    name: str
    field: str
    selection: str
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: Literal["query", "mutation"] = "query"
    resend: bool = True
    newer: str = ""

    def document(self, given: Iterable[str], *, with_newer: bool = False) -> str:
        """Return the GraphQL document for the given arguments.

        The document names only the given arguments. So a backend that does not know another argument accepts the
        document.

        Args:
            given: The names of the arguments.
            with_newer: Whether to select the fields that only newer backends have.

        Returns:
            A GraphQL document.
        """
        names = [name for name in self.arguments if name in set(given)]
        declared = ", ".join(f"${name}: {self.arguments[name]}" for name in names)
        passed = ", ".join(f"{name}: ${name}" for name in names)
        # In the selection, "#newer" marks the place of the further fields.
        selection = self.selection.replace("#newer", self.newer if with_newer else "")
        return (
            f"{self.kind} {self.name}{f'({declared})' if declared else ''} {{\n"
            f"  {self.field}{f'({passed})' if passed else ''} {{\n"
            f"    {' '.join(selection.split())}\n"
            "  }\n"
            "}"
        )

    def aliased(self, each: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
        """Return one document that asks for the same field several times, under the aliases `a0`, `a1` and so on.

        Args:
            each: The variables of each alias. All aliases have the same variables, with other values.

        Returns:
            The document and its variables.
        """
        selection = " ".join(self.selection.replace("#newer", "").split())
        declared, fields, values = [], [], {}
        for n, variables in enumerate(each):
            passed = ", ".join(f"{name}: ${name}{n}" for name in variables)
            declared += [f"${name}{n}: {self.arguments[name]}" for name in variables]
            fields.append(f"  a{n}: {self.field}({passed}) {{ {selection} }}")
            values.update({f"{name}{n}": value for name, value in variables.items()})
        lines = "\n".join(fields)
        return f"{self.kind} {self.name}({', '.join(declared)}) {{\n{lines}\n}}", values


def older_way(variables: Mapping[str, Any], missing: str | None) -> dict[str, Any] | None:
    """Return variables for the same request without an argument that an older backend does not know.

    Args:
        variables: The variables of the request that the backend refused.
        missing: The argument, or the input type, that the backend's validation error names.

    Returns:
        The variables, with only the arguments of the vendor's API page; None if these arguments cannot express the
        request.
    """
    name = "commandConfigs" if missing == "BoltCommandInput" else missing
    if name not in variables:
        return None
    rest = {other: value for other, value in variables.items() if other != name}
    if name == "reason":
        return rest
    if name == "commandConfigs" and not any(each.get("continueOnError") for each in variables[name]):
        return {**rest, "commands": [each["command"] for each in variables[name]]}
    return None


TRIGGER_BOLT_RUN = Operation(
    name="TriggerBoltRun",
    field="triggerBoltRun",
    kind="mutation",
    resend=False,
    arguments=TRIGGER_ARGUMENTS,
    selection="runId",
)
CANCEL_BOLT_RUN = Operation(
    name="CancelBoltRun",
    field="cancelBoltRun",
    kind="mutation",
    arguments={"scheduleRunId": "Int!"},
    selection="ok",
)
BOLT_RUN_STATUS = Operation(
    name="BoltRunStatus",
    field="boltRunStatus",
    arguments={"runId": "Int!"},
    selection="ok state commands { id command startDttm endDttm stdout stderr returnCode }",
)
# The operation for polls. It does not ask for the logs, which may have megabytes.
BOLT_RUN_STATE = Operation(
    name="BoltRunState",
    field="boltRunStatus",
    arguments={"runId": "Int!"},
    selection="ok state commands { id command startDttm endDttm returnCode }",
)
BOLT_COMMAND = Operation(
    name="BoltCommand",
    field="boltCommand",
    arguments={"commandId": "Int!"},
    selection="command startDttm endDttm stdout stderr returnCode scheduleRunId resources { id path } ok",
)
# The operation for the result of a run, which asks for all commands at once. It does not ask for the logs, which would
# make the reply huge.
BOLT_COMMAND_RESOURCES = Operation(
    name="BoltCommandResources",
    field="boltCommand",
    arguments={"commandId": "Int!"},
    selection="ok resources { id path }",
)
# The operation for webhooks, which name only commands.
BOLT_COMMAND_RUN = Operation(
    name="BoltCommandRun",
    field="boltCommand",
    arguments={"commandId": "Int!"},
    selection="ok scheduleRunId",
)
BOLT_RESOURCE_URL = Operation(
    name="BoltResourceUrl",
    field="boltResourceUrl",
    arguments={"resourceId": "Int!"},
    selection="ok url",
)
LIST_BOLT_SCHEDULES = Operation(
    name="ListBoltSchedules",
    field="listBoltSchedules",
    arguments={
        "offset": "Int!",
        "limit": "Int!",
        "showInactive": "Boolean!",
        "filter": "BoltScheduleFilter!",
    },
    selection="""
        schedules {
            name schedule owner lastRunAt lastRunState nextRunAt id uuid source
            turboCi { enabled deferredScheduleName successfulRunOnly }
            deferredSchedule { deferredScheduleName enabled successfulRunOnly }
            commands gitBranch slackOn slackNotify emailOn emailNotify #newer
        }
        totalCount
    """,
    newer="slug suspended",
)
BOLT_SCHEDULE_NAME = Operation(
    name="BoltScheduleName",
    field="boltScheduleName",
    arguments={"scheduleName": "String!"},
    selection="ok latestRunId commands owner schedule uuid source #newer",
    newer="suspended",
)
LIST_BOLT_RUNS = Operation(
    name="ListBoltRuns",
    field="listBoltRuns",
    arguments={"slug": "String!", "offset": "Int!", "limit": "Int!"},
    selection="""
        ok
        runs {
            id state actor actorEmail startDttm endDttm parentScheduleRunId
            gitInfo { branch commitHash pullRequestId }
        }
    """,
)
RETRY_BOLT_RUN = Operation(
    name="RetryBoltRun",
    field="retryBoltRun",
    kind="mutation",
    resend=False,
    arguments={"scheduleRunId": "Int!"},
    selection="runId",
)
RETRY_ALL_BOLT_RUN = Operation(
    name="RetryAllBoltRun",
    field="retryAllBoltRun",
    kind="mutation",
    resend=False,
    arguments={"scheduleRunId": "Int!"},
    selection="runId",
)
RETRY_BOLT_RUN_FROM_FAILURE = Operation(
    name="RetryBoltRunFromFailure",
    field="retryBoltRunFromFailure",
    kind="mutation",
    resend=False,
    arguments={"slug": "String!"},
    selection="runId",
)
SUSPEND_BOLT_SCHEDULE = Operation(
    name="SuspendBoltSchedule",
    field="suspendBoltSchedule",
    kind="mutation",
    arguments={"slug": "String!", "suspend": "Boolean!"},
    selection="ok",
)
BOLT_COMMAND_LOGS = Operation(
    name="BoltCommandLogs",
    field="boltCommandLogs",
    arguments={"commandId": "Int!", "cursor": "String!"},
    selection="lines { stream line } cursor finished",
)
