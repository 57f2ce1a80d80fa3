"""Checks the wheel that users get.

`check_wheel.py contents DIST` checks the contents of the wheel in a folder. `check_wheel.py installed` imports the
package; run it with the Python of an environment that has only the wheel installed. `check_wheel.py runs README` runs
the README's smallest flow as a user would, on the server that Prefect starts for a script; run it with the same Python
after installing the extra `testing`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

PACKAGES = {"paradime_blocks", "paradime_flows"}
# Prefect's own limit for its server is 20 s, but a slow machine needs a minute. The whole flow has a limit too.
SERVER_START_SECONDS = 240
FLOW_SECONDS = 420


def check_contents(dist: Path) -> None:
    """The wheel holds the two import packages, both typed, and no other importable module."""
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
    """Both packages and all of their modules come from site-packages and can be imported."""
    site = Path(sysconfig.get_paths()["purelib"]).resolve()
    for name in sorted(PACKAGES):
        package = importlib.import_module(name)
        folder = Path(str(package.__file__)).resolve().parent
        if folder.parent != site:
            sys.exit(f"{name} was imported from {folder}, not from {site}.")
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(site).with_suffix("").parts
            if "testing" not in parts and parts[-1] != "__init__":
                importlib.import_module(".".join(parts))
    if importlib.util.find_spec("flows") is not None:
        sys.exit("There is a module called `flows`: it would break users' own flows/ folders.")
    if "graphql" in sys.modules or "paradime_blocks.testing" in sys.modules:
        sys.exit("The simulator was imported: it is a test aid, and its GraphQL library an extra.")
    values = [point.value for point in entry_points(group="prefect.collections")]
    if "paradime_blocks" not in values:
        sys.exit(f"Prefect would not find the blocks: its collections here are {values}.")
    print(f"Imported {', '.join(sorted(PACKAGES))} from an environment with nothing but the wheel")


def check_runs(readme: Path) -> None:
    """The README's first Python block runs: the installed versions work together."""
    found = re.search(r"^```python\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if found is None:
        sys.exit(f"{readme.name} shows no Python.")
    settings = ("PREFECT_", "PARADIME_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    with tempfile.TemporaryDirectory() as home:
        environment |= {
            "HOME": home,
            "PREFECT_HOME": home,
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(SERVER_START_SECONDS),
            "DO_NOT_TRACK": "1",
        }
        script = Path(home) / "smallest_flow.py"
        script.write_text(found[1], encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-I", str(script)],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=FLOW_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            sys.exit(f"The smallest flow of {readme.name} took more than {FLOW_SECONDS} s:\n{output}")
    printed = [line for line in output.splitlines() if line.startswith("SUCCESS https://")]
    if process.returncode != 0 or not printed:
        sys.exit(f"The smallest flow of {readme.name} ended with code {process.returncode}:\n{output}")
    print(f"Ran the smallest flow of {readme.name}: {printed[0]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["contents"]:
        check_contents(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["runs"]:
        check_runs(Path(sys.argv[2]))
    else:
        check_installed()
