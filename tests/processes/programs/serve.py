"""Serves flows of `process_flows`. Arguments: the deployment's name and the names of the flows."""

import sys

import process_flows
from prefect import serve
from prefect.deployments.runner import EntrypointType


def main(deployment: str, *names: str) -> None:
    served = []
    for name in names:
        flow = getattr(process_flows, name)
        runner = flow.to_deployment(f"{deployment}-{name}", entrypoint_type=EntrypointType.MODULE_PATH)
        # A flow with other options than its function's own is found by its name here.
        runner.entrypoint = f"process_flows.{name}"
        served.append(runner)
    serve(*served, limit=50)


if __name__ == "__main__":
    main(*sys.argv[1:])
