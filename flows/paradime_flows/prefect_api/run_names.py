"""The name of a flow run: what a person has called it, or else what it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from prefect.runtime import flow_run as this_flow_run

# The names that Prefect makes up: "brave-otter" in general, "chi779-dalton" in the form of the V1 UI, "Small-Taipan" in
# the form of the V2 UI.
_GENERATED: Final = re.compile(r"[a-z]+\d*-[a-z]+|[A-Z][a-z]+-[A-Z][\w' ]+")


def unless_named(name: Callable[[Mapping[str, Any]], str]) -> Callable[[], str]:
    """Return a value for Prefect's `flow_run_name` that keeps a name that a person has given.

    A name of two plain words, such as "nightly-build", cannot be told from a generated name, and is replaced.

    Args:
        name: Returns the name for a flow run with a generated name. The argument is the parameters of the flow run.
    """

    def name_of_this_run() -> str:
        given = this_flow_run.name
        if given and not _GENERATED.fullmatch(given):
            return str(given)
        return name(this_flow_run.parameters)

    return name_of_this_run
