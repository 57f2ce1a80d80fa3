"""Look at the wheel as a user gets it.

`check_wheel.py contents DIST` looks into the wheel of a folder; `check_wheel.py installed`, run by the Python
of an environment into which it was installed and nothing else, imports it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

PACKAGES = {"paradime_blocks", "paradime_flows"}


def check_contents(dist: Path) -> None:
    """The wheel holds the two import packages, both typed, and nothing else that could be imported."""
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    packages = {name for name in top if not name.endswith(".dist-info")}
    if packages != PACKAGES:
        sys.exit(f"{wheel.name} holds {sorted(packages)}; it should hold {sorted(PACKAGES)}.")
    missing = [f"{name}/py.typed" for name in sorted(PACKAGES) if f"{name}/py.typed" not in names]
    if missing:
        sys.exit(f"{wheel.name} lacks {missing}: users' type checkers would take it for untyped.")
    print(f"{wheel.name}: {len(names)} files in {', '.join(sorted(packages))}")


def check_installed() -> None:
    """Both packages and every module of theirs come from site-packages and can be imported."""
    site = Path(sysconfig.get_paths()["purelib"]).resolve()
    for name in sorted(PACKAGES):
        package = importlib.import_module(name)
        folder = Path(str(package.__file__)).resolve().parent
        if folder.parent != site:
            sys.exit(f"{name} was imported from {folder}, not from {site}.")
        for path in sorted(folder.glob("*.py")):
            if path.stem not in {"__init__", "__main__"}:
                importlib.import_module(f"{name}.{path.stem}")
    if importlib.util.find_spec("flows") is not None:
        sys.exit("There is a module called `flows`: it would break users' own flows/ folders.")
    if "graphql" in sys.modules or "paradime_blocks.testing" in sys.modules:
        sys.exit("The simulator was imported: it is a test aid, and its GraphQL library an extra.")
    values = [point.value for point in entry_points(group="prefect.collections")]
    if "paradime_blocks" not in values:
        sys.exit(f"Prefect would not find the blocks: its collections here are {values}.")
    print(f"Imported {', '.join(sorted(PACKAGES))} from an environment with nothing but the wheel")


if __name__ == "__main__":
    if sys.argv[1:2] == ["contents"]:
        check_contents(Path(sys.argv[2]))
    else:
        check_installed()
