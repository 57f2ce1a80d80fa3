"""Calls one of `process_flows`. Arguments: its name, a tag to find the flow run by, and its parameters as JSON."""

import asyncio
import json
import sys

import process_flows
from prefect import tags
from prefect.flows import Flow


def main(name: str, tag: str, parameters: str) -> None:
    called = getattr(process_flows, name)
    with tags(tag):
        if isinstance(called, Flow) and type(called).__call__ is Flow.__call__ and called.isasync:
            asyncio.run(called(**json.loads(parameters)))
        else:
            called(**json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
