"""The files in deployments/: what Prefect, Docker and Kubernetes will read there."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import serve
from prefect import Flow
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.utilities.schema_tools.validation import validate
from ruamel.yaml import YAML

from paradime_flows.webhooks import webhook_app
from paradime_flows.webhooks.__main__ import _parser as webhooks_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployments"
FILE: dict[str, Any] = YAML(typ="safe", pure=True).load(FOLDER / "prefect.yaml")
SCHEMA = PrefectYamlModel.model_json_schema()
TEMPLATE: dict[str, Any] = json.loads((FOLDER / "kubernetes" / "base-job-template.json").read_text())
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ENTRYPOINTS = [entry["entrypoint"] for entry in FILE["deployments"]]


def flow_of(entry: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    return flow


def test_prefect_yaml_is_valid_against_prefects_own_schema():
    """Prefect reads the file with the model from which it makes its JSON schema."""
    jsonschema.validate(FILE, SCHEMA)


def test_prefect_yaml_has_no_key_that_prefect_ignores():
    """The schema allows unknown keys: a misspelt one would have no effect. `definitions` is for anchors."""
    known = {*SCHEMA["properties"], "definitions"}
    assert set(FILE) <= known
    of_a_deployment = set(SCHEMA["$defs"]["DeploymentConfig"]["properties"])
    of_a_pool = set(SCHEMA["$defs"]["WorkPoolConfig"]["properties"])
    of_a_limit = set(SCHEMA["$defs"]["ConcurrencyLimitSpec"]["properties"])
    for entry in FILE["deployments"]:
        assert set(entry) <= of_a_deployment
        assert set(entry["work_pool"]) <= of_a_pool
        assert set(entry.get("concurrency_limit", {})) <= of_a_limit


def test_every_flow_of_the_package_is_deployed():
    """A flow without a deployment cannot be started from the UI."""
    flows = set()
    for path in (ROOT / "flows" / "paradime_flows").glob("*.py"):
        found = getattr(import_module(f"paradime_flows.{path.stem}"), path.stem, None)
        if isinstance(found, Flow):
            flows.add(f"paradime_flows.{path.stem}.{path.stem}")
    assert flows == set(ENTRYPOINTS)


@pytest.mark.parametrize("entry", FILE["deployments"], ids=ENTRYPOINTS)
def test_a_deployment_says_what_it_is_and_holds_no_secret(entry):
    """Prefect stores parameters and job variables in plain text."""
    assert entry["description"].endswith(".")
    assert entry["tags"] == ["paradime"]
    text = json.dumps([entry.get("parameters"), entry["work_pool"], entry.get("schedules")])
    assert not re.search(r"prefect\.blocks|\$ref|secret|api_key", text, re.IGNORECASE)


@pytest.mark.parametrize("entry", FILE["deployments"], ids=ENTRYPOINTS)
def test_the_flow_accepts_the_parameters_of_schedules_and_triggers(entry):
    """Otherwise each scheduled run would fail."""
    schema = flow_of(entry).parameters.model_dump()
    for each in [*entry.get("schedules", []), *entry.get("triggers", [])]:
        given = {**entry.get("parameters", {}), **each.get("parameters", {})}
        templates = {name for name, value in given.items() if "{{" in str(value)}
        validate(
            {name: value for name, value in given.items() if name not in templates},
            {**schema, "required": [name for name in schema.get("required", []) if name not in templates]},
            raise_on_error=True,
        )


def test_only_the_sweeper_runs_by_itself():
    """A schedule that Bolt starts, too, would run twice."""
    active = [
        entry["name"]
        for entry in FILE["deployments"]
        for schedule in entry.get("schedules", [])
        if schedule["active"]
    ]
    assert active == ["sweeper"]


def test_a_flow_run_counts_as_silent_after_three_heartbeats():
    """One heartbeat may be late, and one may be lost."""
    (heartbeat,) = serve.environment().values()
    windows = [
        trigger["within"]
        for entry in FILE["deployments"]
        for trigger in entry.get("triggers", [])
        if trigger["posture"] == "Proactive"
    ]
    assert windows == [3 * int(heartbeat)]


def test_workers_pull_no_code():
    """`pull: null` would store the folder of the machine that deployed."""
    assert FILE["pull"] == []


def test_serve_offers_what_prefect_yaml_deploys():
    """The same flows, names, schedules, triggers and limits, so that nothing else changes with a move."""
    served = serve.deployments()
    assert [each.entrypoint for each in served] == ENTRYPOINTS
    for deployment, entry in zip(served, FILE["deployments"], strict=True):
        assert (deployment.name, deployment.tags) == (entry["name"], entry["tags"])
        assert deployment.description == entry["description"]
        schedules = deployment.schedules or []
        assert all(isinstance(each, DeploymentScheduleCreate) for each in schedules)
        assert [each.slug for each in schedules] == [each["slug"] for each in entry.get("schedules", [])]
        assert [each.active for each in schedules] == [each["active"] for each in entry.get("schedules", [])]
        names = [trigger.name for trigger in deployment.triggers]
        assert names == [trigger["name"] for trigger in entry.get("triggers", [])]
        assert deployment.concurrency_limit == entry.get("concurrency_limit", {}).get("limit")


def test_the_job_template_uses_the_variables_that_it_defines():
    """An unknown one would be empty in each job; an unused one would be a field without an effect."""
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(TEMPLATE["job_configuration"])))
    assert used == set(TEMPLATE["variables"]["properties"])


def test_the_jobs_secrets_are_references():
    """A value would be readable in Prefect by everybody who sees the work pool."""
    (container,) = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"]
    assert [sorted(each) for each in container["env"]] == [["name", "valueFrom"]] * 3
    assert {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"]} == {"{{ secret_name }}"}


def _receivers() -> dict[str, tuple[list[str], int]]:
    """The command and the port of each receiver of webhooks."""
    yaml = YAML(typ="safe", pure=True)
    compose = yaml.load(FOLDER / "docker" / "compose.yaml")["services"]["webhooks"]
    deployment, service, ingress = yaml.load_all(FOLDER / "kubernetes" / "webhooks.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,), (rule,) = container["ports"], ingress["spec"]["rules"]
    (path,), (served,) = rule["http"]["paths"], service["spec"]["ports"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    assert served["targetPort"] == port["name"] == container["readinessProbe"]["httpGet"]["port"]
    assert path["backend"]["service"] == {
        "name": service["metadata"]["name"],
        "port": {"name": served["name"]},
    }
    return {
        "docker": (shlex.split(compose["command"]), int(compose["ports"][0].rpartition(":")[2])),
        "kubernetes": (container["args"], port["containerPort"]),
    }


@pytest.mark.parametrize("where", ["docker", "kubernetes"])
def test_a_receiver_of_webhooks_is_started_as_its_command_allows(where):
    """It listens outside of its container, at the port that the file publishes."""
    command, port = _receivers()[where]
    assert command[:3] == ["python", "-m", "paradime_flows.webhooks"]
    options = webhooks_parser().parse_args(command[3:])
    assert (options.host, options.port, options.archive) == ("0.0.0.0", port, True)  # noqa: S104


def test_the_receivers_have_the_health_path_and_no_secret_value():
    """A value would be readable in the file; the path of the ingress is that of the webhooks."""
    text = (FOLDER / "kubernetes" / "webhooks.yaml").read_text()
    deployment, _, ingress = YAML(typ="safe", pure=True).load_all(text)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    routes = {route.path for route in webhook_app(secrets=["x" * 16]).routes}
    assert container["livenessProbe"]["httpGet"]["path"] in routes
    assert f"{ingress['spec']['rules'][0]['http']['paths'][0]['path']}{{secret}}" in routes
    values = {each["name"] for each in container["env"] if "value" in each}
    assert values == {"PREFECT_API_URL"}
    assert {each["name"] for each in container["env"]} - values == {
        "PARADIME_API_ENDPOINT",
        "PARADIME_API_KEY",
        "PARADIME_API_SECRET",
        "PARADIME_WEBHOOK_SECRET",
    }


def test_the_flows_run_beside_the_receiver_in_docker():
    """The receiver starts a deployment that archives; the image has the program that runs it."""
    services = YAML(typ="safe", pure=True).load(FOLDER / "docker" / "compose.yaml")["services"]
    flows, receiver = services["flows"], services["webhooks"]
    for same in ("image", "env_file", "environment", "depends_on"):
        assert flows[same] == receiver[same]
    folder = re.search(r"^WORKDIR (\S+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert folder
    assert flows["command"] == f"python {folder[1]}/deployments/serve.py"
    archives = webhooks_parser().parse_args(["serve"]).archive_deployment
    assert archives in {
        f"{entry['entrypoint'].rpartition('.')[2].replace('_', '-')}/{entry['name']}"
        for entry in FILE["deployments"]
    }


def test_the_readme_creates_the_secrets_of_the_receivers():
    """With all their keys; a pod whose secret is missing does not start."""
    readme = README.replace("\\\n", "")
    text = (FOLDER / "kubernetes" / "webhooks.yaml").read_text()
    for name, key in re.findall(r"secretKeyRef: \{name: (\S+), key: (\S+?)\}", text):
        (created,) = re.findall(rf"^kubectl create secret generic {name} .+$", readme, re.MULTILINE)
        assert f"--from-literal={key}=" in created
    (name,) = re.findall(r"secretName: (\S+)", text)
    assert f"kubectl create secret tls {name} --namespace prefect --cert=" in readme


def test_the_files_in_the_commands_of_the_readme_exist():
    """Only the file with the secrets is the reader's own, and Docker's two commands use the same one."""
    commands = "".join(re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"(?<![\w/])deployments/[\w./-]+", commands))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).exists()} == {"deployments/docker/paradime.env"}
    compose = YAML(typ="safe", pure=True).load(FOLDER / "docker" / "compose.yaml")["services"]
    assert {each["env_file"] for each in compose.values() if "env_file" in each} == {"paradime.env"}


def test_the_readme_says_what_a_reader_has_to_change():
    """With the image's default name, each pod of a cluster would end as ImagePullBackOff."""
    kubernetes = README.partition("\n## Kubernetes\n")[2]
    assert "docker push" in kubernetes
    assert "`default` of `image`" in kubernetes
    assert "default" in TEMPLATE["variables"]["properties"]["image"]
    values = YAML(typ="safe", pure=True).load(FOLDER / "kubernetes" / "worker-values.yaml")
    assert "`apiUrl`" in kubernetes
    assert "apiUrl" in values["worker"]["selfHostedServerApiConfig"]


def test_the_image_has_the_prefect_of_the_tests_and_no_other_file():
    """Docker sends only what the Dockerfile copies: a `.env` must not get into an image."""
    dockerfile = (FOLDER / "Dockerfile").read_text()
    pin = re.search(r"^prefect==(\S+) ; .*>= '3.11'$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    values = YAML(typ="safe", pure=True).load(FOLDER / "kubernetes" / "worker-values.yaml")
    assert pin
    assert f"FROM prefecthq/prefect:{pin[1]}-" in dockerfile
    assert values["worker"]["image"]["prefectTag"].startswith(f"{pin[1]}-")
    assert FILE["prefect-version"] == pin[1]
    compose = YAML(typ="safe", pure=True).load(FOLDER / "docker" / "compose.yaml")
    assert compose["services"]["prefect-server"]["image"].startswith(f"prefecthq/prefect:{pin[1]}-")
    copied = {
        name for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }
    allowed = set(re.findall(r"^!(.+)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert copied == allowed
    assert [name for name in copied if not (ROOT / name).exists()] == []
