"""What is shipped, as far as a look at the files can tell; `make wheel-check` installs the wheel."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_wheel_holds_the_two_import_packages(project):
    """Nothing else reaches site-packages: above all no `flows`, which users' own repositories have."""
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["paradime_blocks", "flows/paradime_flows"]}


def test_flows_is_a_source_root_and_no_package():
    """An `__init__.py` in flows/ would make a module called `flows` of it."""
    assert not (ROOT / "flows" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "flows").iterdir() if path.suffix == ".py"] == []


def test_paradime_flows_re_exports_nothing():
    """A flow and its module share a name: a re-export would hide the module, whose source Prefect reads."""
    tree = ast.parse((ROOT / "flows" / "paradime_flows" / "__init__.py").read_text())
    code = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    assert code == []


@pytest.mark.parametrize("package", ["paradime_blocks", "flows/paradime_flows"])
def test_each_package_says_that_it_is_typed(package):
    """Without py.typed a user's type checker takes everything of ours for Any."""
    assert (ROOT / package / "py.typed").is_file()


def test_prefect_finds_the_blocks_by_the_entry_point():
    """Prefect imports its collections when it starts; ours registers the blocks that way."""
    ours = [point for point in entry_points(group="prefect.collections") if point.name == "prefect_paradime"]
    assert [point.value for point in ours] == ["paradime_blocks"]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt"])
def test_the_sdist_holds_what_is_needed_to_test_it(project, name):
    """Whoever packages this for a distribution starts from the sdist."""
    assert f"/{name}" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", ["constraints.txt", "tests/contract/requirements.txt"])
def test_every_pin_is_a_plain_version(name):
    """A registry's address, a file or a repository in a pin would work on one machine and not on the next."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    lines = [line.strip() for line in path.read_text().splitlines()]
    odd = [line for line in lines if line and not line.startswith("#") and not PIN.fullmatch(line)]
    assert odd == []


def test_the_pins_are_sorted_and_named_once(pins):
    """Sorted by name, so that a difference between two versions of the file can be read."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [line.split("==")[0].lower() for line in lines if line and not line.startswith("#")]
    assert names == sorted(names)
    assert len(names) == len(pins)


def test_every_direct_requirement_is_pinned(project, pins):
    """A requirement without a pin would take whatever is newest that day."""
    extras = project["project"]["optional-dependencies"]
    required = [*project["project"]["dependencies"], *extras["testing"], *extras["dev"]]
    names = [re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in required]
    assert [name for name in names if name not in {pin.lower() for pin in pins}] == []


def test_fastapi_is_pinned_to_one_that_prefects_server_starts_with(pins):
    """Prefect 3.8 sets no upper bound, and its server does not start on fastapi 0.151."""
    assert tuple(int(part) for part in pins["fastapi"].split(".")[:2]) < (0, 151)
