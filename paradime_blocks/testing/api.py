"""Executes GraphQL requests and returns JSON. As on a real server, each document is checked against the schema."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLIncludeDirective,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    Visitor,
    execute_sync,
    get_directive_values,
    get_operation_ast,
    parse,
    validate,
    visit,
)
from graphql.execution.values import get_variable_values

from .planning import Refused
from .resolvers import Resolvers
from .schema import SchemaText
from .state import Workspace

NO_PERMISSION = "You do not have permission to do this: the API key may only read metadata."

_CACHED_DOCUMENTS = 500


@dataclass(frozen=True)
class Prepared:
    """A request that has been parsed and checked.

    Attributes:
        operations: The names of the request's root fields.
        selected: For each key of the response's data, the keys below that key.
        is_mutation: Whether the request is a mutation.
        errors: The GraphQL errors that say why the request cannot be executed.
        not_understood: Why the request is invalid, for the test's report. None if the request is valid for the whole
            schema, and fails only because the backend acts as an older one.
    """

    operations: tuple[str, ...] = ()
    selected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_mutation: bool = False
    errors: tuple[Mapping[str, Any], ...] = ()
    not_understood: str | None = None
    document: DocumentNode | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation_name: str | None = None

    def nothing(self, *, ok: bool | None) -> dict[str, Any]:
        """Return the response's data with null for every selected field except `ok`."""
        return {
            key: {each: ok if each == "ok" else None for each in below}
            for key, below in self.selected.items()
        }


_Checked: TypeAlias = tuple[DocumentNode, list[GraphQLError], str | None]
# The documents that were already checked against the whole schema. All simulators of a process share them.
_checked_by_all: dict[str, _Checked] = {}


@functools.cache
def _whole_schema() -> tuple[SchemaText, GraphQLSchema]:
    """Build the whole schema, only once per process: the build takes longer than most tests."""
    text = SchemaText()
    return text, text.build()


class GraphQLApi:
    """Checks and executes GraphQL requests."""

    def __init__(self, workspace: Workspace, resolvers: Resolvers) -> None:
        """Start with the whole schema.

        Args:
            workspace: The workspace. Requests are executed under the workspace's lock.
            resolvers: The functions that execute the root fields.
        """
        self._workspace = workspace
        self._root = resolvers.root()
        self._whole_text, self._whole = _whole_schema()
        self._root_for_reading = {**self._root, **dict.fromkeys(self._whole_text.mutations, _no_permission)}
        self.restore()

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all root fields in the whole schema."""
        return self._whole_text.operations

    def restore(self) -> None:
        """Restore the whole schema."""
        self._text = self._whole_text
        self._schema = self._whole
        self._no_aliases = False
        self._checked = _checked_by_all

    def reduce(
        self,
        *,
        operations: Iterable[str] = (),
        arguments: Iterable[str] = (),
        fields: Iterable[str] = (),
        aliases: bool = False,
    ) -> None:
        """Remove operations, arguments, fields or aliases from the schema. `SchemaText.without` describes the names."""
        self._text = self._text.without(operations=operations, arguments=arguments, fields=fields)
        self._schema = self._text.build()
        self._no_aliases = self._no_aliases or aliases
        self._checked = {}

    def prepare(self, query: str, variables: Mapping[str, Any], operation_name: str | None) -> Prepared:
        """Parse and check a request."""
        try:
            document, errors, blame = self._check(query)
        except GraphQLError as error:
            return Prepared(errors=(error.formatted,), not_understood=error.message)
        operation = get_operation_ast(document, operation_name)
        if operation is None:
            message = "Give an operation name that the document has: it must be clear what to execute."
            return Prepared(errors=({"message": message},), not_understood=message)
        # A field excluded by @skip is not requested. In an invalid request, all fields count.
        # graphql-core 3.2 returns a dict here, 3.3 a class of its own. Only graphql-core reads this value.
        values: Any = None
        if not errors:
            declared = get_variable_values(
                self._schema, operation.variable_definitions or (), dict(variables)
            )
            if isinstance(declared, list):
                errors, blame = declared, declared[0].message
            else:
                values = declared
        roots = list(_fields(operation.selection_set, document, values))
        return Prepared(
            operations=tuple(dict.fromkeys(node.name.value for node in roots)),
            selected=_selected(roots, document, values),
            is_mutation=operation.operation is OperationType.MUTATION,
            errors=tuple(error.formatted for error in errors),
            not_understood=blame,
            document=document,
            variables=variables,
            operation_name=operation_name,
        )

    def act(self, prepared: Prepared, *, read_only: bool = False) -> tuple[dict[str, Any], str | None]:
        """Execute a request once, under the workspace's lock.

        Args:
            prepared: The request.
            read_only: Whether to refuse each mutation, because the key may only read.

        Returns:
            The response, and the text of an internal error of the simulator, if there was one.
        """
        if prepared.errors or prepared.document is None:
            return {"errors": list(prepared.errors)}, None
        with self._workspace.lock:
            result = execute_sync(
                self._schema,
                prepared.document,
                root_value=self._root_for_reading if read_only else self._root,
                variable_values=dict(prepared.variables),
                operation_name=prepared.operation_name,
            )
        unexpected = [e for e in result.errors or () if not isinstance(e.original_error, Refused)]
        return dict(result.formatted), repr(unexpected[0].original_error) if unexpected else None

    def _check(self, query: str) -> _Checked:
        known = self._checked.get(query)
        if known is not None:
            return known
        # A check takes milliseconds, and clients send the same few documents again and again. So results are cached.
        if len(self._checked) >= _CACHED_DOCUMENTS:
            self._checked.clear()
        document = parse(query)
        errors = validate(self._schema, document)
        blame = errors[0].message if errors else None
        if errors and self._schema is not self._whole and not validate(self._whole, document):
            # The request is valid. It fails only because the backend acts as an older one.
            blame = None
        aliases = _aliases(document) if self._no_aliases and not errors else 0
        if aliases:
            errors = [GraphQLError(f"Aliases limit of 0 exceeded, found {aliases}.")]
        checked = self._checked[query] = document, errors, blame
        return checked


def _no_permission(_info: object, **_arguments: object) -> dict[str, Any]:
    raise Refused(NO_PERMISSION)


def _fields(selection: SelectionSetNode, document: DocumentNode, values: Any) -> Iterator[FieldNode]:
    """Yield the fields of a selection and of its fragments, except fields that directives exclude."""
    for node in selection.selections:
        if values is not None and not _is_wanted(node, values):
            continue
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            yield from _fields(node.selection_set, document, values)
        elif isinstance(node, FragmentSpreadNode):
            for fragment in document.definitions:
                if isinstance(fragment, FragmentDefinitionNode) and fragment.name.value == node.name.value:
                    yield from _fields(fragment.selection_set, document, values)


def _is_wanted(node: SelectionNode, values: Any) -> bool:
    skip = get_directive_values(GraphQLSkipDirective, node, values)
    include = get_directive_values(GraphQLIncludeDirective, node, values)
    return not (skip and skip["if"]) and not (include and not include["if"])


def _selected(roots: Iterable[FieldNode], document: DocumentNode, values: Any) -> dict[str, tuple[str, ...]]:
    return {
        _key(root): tuple(_key(node) for node in _fields(root.selection_set, document, values))
        for root in roots
        if root.selection_set is not None
    }


def _key(node: FieldNode) -> str:
    return node.alias.value if node.alias else node.name.value


def _aliases(document: DocumentNode) -> int:
    found: list[FieldNode] = []

    class _Collect(Visitor):
        def enter_field(self, node: FieldNode, *_: object) -> None:
            if node.alias:
                found.append(node)

    visit(document, _Collect())
    return len(found)
