"""The GraphQL schema of the Bolt API as text, and a class that removes parts of the schema."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from graphql import (
    DocumentNode,
    FieldDefinitionNode,
    GraphQLSchema,
    InputValueDefinitionNode,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    TypeNode,
    build_ast_schema,
    parse,
)
from graphql.language import ListTypeNode

# Arguments and fields are the vendor's published facts. The names of object types, and which fields may be null,
# are inferences: no introspection of the real service was available. The names of input types are facts, since
# clients use them in their variable declarations.
SDL = """
type Query {
  boltRunStatus(runId: Int!): BoltRunStatusType
  boltCommand(commandId: Int!): BoltCommandDetailsType
  boltCommandLogs(commandId: Int!, cursor: String): BoltCommandLogsType
  boltResourceUrl(resourceId: Int!): BoltResourceUrlType
  listBoltSchedules(
    offset: Int!, limit: Int!, showInactive: Boolean!, filter: BoltScheduleFilter
  ): BoltSchedulesType
  boltScheduleName(scheduleName: String, slug: String): BoltScheduleNameType
  listBoltRuns(slug: String, offset: Int!, limit: Int!): BoltRunsType
}

type Mutation {
  triggerBoltRun(
    scheduleName: String, slug: String, commands: [String!], branch: String, prNumber: Int, reason: String,
    commandConfigs: [BoltCommandInput!], continueOnError: Boolean
  ): BoltRunIdType
  cancelBoltRun(scheduleRunId: Int!): BoltOkType
  retryBoltRun(scheduleRunId: Int!): BoltRunIdType
  retryAllBoltRun(scheduleRunId: Int!): BoltRunIdType
  retryBoltRunFromFailure(slug: String): BoltRunIdType
  suspendBoltSchedule(slug: String, suspend: Boolean!): BoltOkType
}

input BoltCommandInput { command: String!, continueOnError: Boolean }
input BoltScheduleFilter { suspended: Boolean }

type BoltOkType { ok: Boolean }
type BoltRunIdType { runId: Int }

type BoltRunStatusType { ok: Boolean, state: String, commands: [BoltCommandType!] }

type BoltCommandType {
  id: Int!
  command: String
  startDttm: String
  endDttm: String
  stdout: String
  stderr: String
  returnCode: Int
}

type BoltCommandDetailsType {
  ok: Boolean
  command: String
  startDttm: String
  endDttm: String
  stdout: String
  stderr: String
  returnCode: Int
  scheduleRunId: Int
  resources: [BoltResourceType!]
}

type BoltResourceType { id: Int!, path: String }
type BoltResourceUrlType { ok: Boolean, url: String }

enum BoltLogStream { STDOUT STDERR }
type BoltLogLineType { stream: BoltLogStream, line: String }
type BoltCommandLogsType { lines: [BoltLogLineType!], cursor: String, finished: Boolean }

type BoltSchedulesType { schedules: [BoltScheduleType!], totalCount: Int }

type BoltScheduleType {
  id: Int!
  uuid: String
  name: String
  slug: String
  schedule: String
  owner: String
  lastRunAt: String
  lastRunState: String
  nextRunAt: String
  source: String
  suspended: Boolean
  turboCi: BoltDeferredScheduleType
  deferredSchedule: BoltDeferredScheduleType
  commands: [String!]
  gitBranch: String
  slackOn: [String!]
  slackNotify: [String!]
  emailOn: [String!]
  emailNotify: [String!]
  notifications: BoltNotificationsType
}

type BoltDeferredScheduleType {
  enabled: Boolean
  deferredScheduleName: String
  deferredScheduleSlug: String
  deferEnvironmentSlug: String
  successfulRunOnly: Boolean
}

type BoltNotificationsType {
  emailNotifications: [BoltNotificationType!]
  slackNotifications: [BoltNotificationType!]
  msTeamsNotifications: [BoltNotificationType!]
}

type BoltNotificationType { channel: String, events: [String!], templateSlug: String, templateName: String }

type BoltScheduleNameType {
  ok: Boolean
  latestRunId: Int
  commands: [String!]
  owner: String
  schedule: String
  uuid: String
  source: String
  suspended: Boolean
}

type BoltRunsType { ok: Boolean, runs: [BoltRunType!] }

type BoltRunType {
  id: Int!
  state: String
  actor: String
  actorEmail: String
  startDttm: String
  endDttm: String
  parentScheduleRunId: Int
  gitInfo: BoltGitInfoType
}

type BoltGitInfoType { branch: String, commitHash: String, pullRequestId: String }
"""

_ROOTS = ("Query", "Mutation")


class SchemaText:
    """The schema as text. Operations, arguments and fields can be removed, to act as an older backend.

    Example:
        >>> schema = SchemaText().without(operations=["listBoltRuns"]).build()
        >>> "listBoltRuns" in schema.query_type.fields
        False
    """

    def __init__(self, document: DocumentNode | None = None) -> None:
        """Start with the whole schema.

        Args:
            document: The parsed schema to start with, such as a schema without some parts. By default, the whole
            schema.
        """
        self._document = document or parse(SDL, no_location=True)
        self._types = {
            node.name.value: node
            for node in self._document.definitions
            if isinstance(node, ObjectTypeDefinitionNode)
        }

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all root fields."""
        # `or ()`, here and below: graphql-core 3.3 has None where 3.2 has an empty tuple.
        return tuple(field.name.value for root in _ROOTS for field in self._types[root].fields or ())

    @property
    def mutations(self) -> tuple[str, ...]:
        """The names of the mutations."""
        return tuple(field.name.value for field in self._types["Mutation"].fields or ())

    def build(self) -> GraphQLSchema:
        """Return the schema as an object that validates and executes documents."""
        return build_ast_schema(self._document)

    def without(
        self,
        *,
        operations: Iterable[str] = (),
        arguments: Iterable[str] = (),
        fields: Iterable[str] = (),
    ) -> SchemaText:
        """Return a copy without the named parts.

        Args:
            operations: Root fields, such as `listBoltRuns`.
            arguments: Arguments of root fields, such as `triggerBoltRun.reason`.
            fields: Fields by type (`BoltScheduleType.suspended`) or by their path from an operation
                (`listBoltSchedules.schedules.suspended`).

        Returns:
            The reduced schema.

        Raises:
            ValueError: The schema has no such name. So a test cannot pass because of a misspelt name.
        """
        gone: set[int] = set()
        for name in operations:
            gone.add(id(self._operation(name)))
        for name in arguments:
            gone.add(id(self._argument(name)))
        for name in fields:
            gone.add(id(self._field(name)))
        return SchemaText(_without_nodes(self._document, gone))

    def _operation(self, name: str) -> FieldDefinitionNode:
        for root in _ROOTS:
            for field in self._types[root].fields or ():
                if field.name.value == name:
                    return field
        raise _unknown("operation", name, self.operations)

    def _argument(self, name: str) -> InputValueDefinitionNode:
        operation, _, argument = name.partition(".")
        known = self._operation(operation).arguments or ()
        for node in known:
            if node.name.value == argument:
                return node
        raise _unknown("argument", name, [f"{operation}.{node.name.value}" for node in known])

    def _field(self, name: str) -> FieldDefinitionNode:
        first, *steps = name.split(".")
        owner = self._types.get(first) or self._types[_type_name(self._operation(first).type)]
        found: FieldDefinitionNode | None = None
        for step in steps:
            if found is not None:
                owner = self._types[_type_name(found.type)]
            found = next((field for field in owner.fields or () if field.name.value == step), None)
            if found is None:
                known = [f"{owner.name.value}.{field.name.value}" for field in owner.fields or ()]
                raise _unknown("field", name, known)
        if found is None:
            raise _unknown("field", name, sorted(self._types))
        return found


def _without_nodes(document: DocumentNode, gone: set[int]) -> DocumentNode:
    definitions = []
    for node in document.definitions:
        if not isinstance(node, ObjectTypeDefinitionNode):
            definitions.append(node)
            continue
        fields = []
        for field in node.fields or ():
            if id(field) in gone:
                continue
            arguments = tuple(argument for argument in field.arguments or () if id(argument) not in gone)
            fields.append(
                FieldDefinitionNode(name=field.name, arguments=arguments, type=field.type, directives=())
            )
        definitions.append(
            ObjectTypeDefinitionNode(name=node.name, fields=tuple(fields), interfaces=(), directives=())
        )
    return DocumentNode(definitions=tuple(definitions))


def _type_name(node: TypeNode) -> str:
    while isinstance(node, (ListTypeNode, NonNullTypeNode)):
        node = node.type
    return node.name.value if isinstance(node, NamedTypeNode) else ""


def _unknown(kind: str, name: str, known: Collection[str]) -> ValueError:
    return ValueError(f"The Bolt schema has no {kind} {name!r}; it has {', '.join(known)}.")
