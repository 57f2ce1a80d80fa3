"""The contents of the package, as far as the files show them; `make wheel-check` installs the wheel."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from paradime_blocks.branding import DOCUMENTATION_URL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
_PYTHON = "Programming Language :: Python :: 3."
PYTHONS = [f"3.{text.removeprefix(_PYTHON)}" for text in PROJECT["classifiers"] if text.startswith(_PYTHON)]
WORKFLOW = YAML(typ="safe", pure=True).load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
# The requirements in pyproject.toml: `dependencies`, and each extra by its name.
REQUIREMENTS = {
    group: [Requirement(text) for text in texts]
    for group, texts in {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
}


def requirements_in(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def applies(requirement: Requirement, python: str) -> bool:
    """Whether a requirement applies to this Python on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.5", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def test_the_wheel_holds_the_two_import_packages():
    """Nothing else reaches site-packages: especially no `flows`, a name that users' own repositories have."""
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["paradime_blocks", "flows/paradime_flows"]}


def test_flows_is_a_source_root_and_no_package():
    """An `__init__.py` in flows/ would turn it into a module called `flows`."""
    assert not (ROOT / "flows" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "flows").iterdir() if path.suffix == ".py"] == []


def test_paradime_flows_re_exports_nothing():
    """A flow and its module have the same name: a re-export would hide the module, whose source Prefect reads."""
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
    """Without py.typed, a user's type checker treats all our types as Any."""
    assert (ROOT / package / "py.typed").is_file()


def test_prefect_finds_the_blocks_by_the_entry_point():
    """Prefect imports its collections when it starts; ours registers the blocks."""
    ours = [point for point in entry_points(group="prefect.collections") if point.name == "prefect_paradime"]
    assert [point.value for point in ours] == ["paradime_blocks"]


def test_the_pythons_are_the_same_everywhere():
    """They are the versions that pip accepts, that the classifiers list and that GitHub's workflow uses."""
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(100) if f"3.{minor}" in allowed] == PYTHONS
    assert WORKFLOW["jobs"]["python"]["strategy"]["matrix"]["python"] == PYTHONS


def test_the_workflow_runs_targets_that_make_has():
    """Otherwise only GitHub would notice a renamed target."""
    there_are = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [
        step["run"].split() for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step
    ]
    named = {word for run in runs for word in run[1:] if re.fullmatch("[a-z-]+", word)}
    named |= set(WORKFLOW["jobs"]["python"]["strategy"]["matrix"]["target"])
    assert {run[0] for run in runs} == {"make"}
    assert {"test", "test-newest", "test-lowest"} <= named <= there_are


def test_all_links_lead_to_one_repository():
    """This includes the blocks' page in Prefect's UI, which leads to the README's section on them."""
    repository = PROJECT["urls"]["Source"]
    assert {url for url in PROJECT["urls"].values() if not url.startswith(repository)} == set()
    page, _, section = DOCUMENTATION_URL.partition("#")
    assert page == repository
    assert f"## {section.capitalize()}\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "page",
    [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("flows/*.md")), *sorted(ROOT.glob("deployments/*.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_of_a_page_lead_to_existing_files_and_headings(page):
    """A moved page or a renamed section would break links."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, section = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if section:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert section in anchors, link


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "constraints.txt"]
)
def test_the_sdist_has_everything_that_its_tests_need(name):
    """Packagers of a distribution start from the sdist."""
    assert f"/{name}" in PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert (ROOT / name).is_file()


def test_upper_bounds_have_a_reason():
    """A bound against a possible future problem stops users from upgrading today."""
    bounded = {
        each.name
        for group in REQUIREMENTS.values()
        for each in group
        if any(bound.operator != ">=" for bound in each.specifier)
    }
    # Prefect's next major version, like its last one, will change what this package depends on.
    assert bounded == {"prefect", "fastapi"}


@pytest.mark.parametrize("name", ["constraints.txt", "tests/contract/requirements.txt"])
def test_every_pin_is_a_plain_version(name):
    """A registry's address, a file or a repository in a pin works on one machine and not on the next."""
    pins = requirements_in(name)
    assert len(pins) > 50
    odd = [
        str(pin)
        for pin in pins
        if pin.url
        or pin.extras
        or [bound.operator for bound in pin.specifier] != ["=="]
        or "*" in str(pin.specifier)
    ]
    assert odd == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_cover_each_requirement_once_per_python(python):
    """A package without a pin would be the newest one of the day; Prefect 3.9 needs Python 3.11, so some have two."""
    pins = [pin for pin in requirements_in("constraints.txt") if applies(pin, python)]
    versions = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins}
    assert len(pins) == len(versions)
    wanted = [each for group in REQUIREMENTS.values() for each in group if applies(each, python)]
    assert {each.name for each in wanted if canonicalize_name(each.name) not in versions} == set()
    assert {
        each.name for each in wanted if versions[canonicalize_name(each.name)] not in each.specifier
    } == set()
