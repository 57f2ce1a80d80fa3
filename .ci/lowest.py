"""Prints constraints for pip: the lowest version of each direct dependency that pyproject.toml allows."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for text in [*project["dependencies"], *project["optional-dependencies"]["testing"]]:
    requirement = Requirement(text)
    floors = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    # A dependency may be listed only for its upper bound, as fastapi is: the lowest Prefect needs that on any Python.
    print(f"{requirement.name}=={floors[0]}" if floors else f"{requirement.name}{requirement.specifier}")
