"""Print constraints for pip: the lowest version of each direct dependency that pyproject.toml claims to work with."""

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
    # Without a floor it is there for its upper bound: that of fastapi, which the lowest Prefect needs on any Python.
    print(f"{requirement.name}=={floors[0]}" if floors else f"{requirement.name}{requirement.specifier}")
