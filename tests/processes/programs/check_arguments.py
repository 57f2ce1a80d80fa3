"""Reads flows and tasks pickled in another process, and makes each check arguments, as at the start of its run.

Arguments: the pickle's format (`cloudpickle`, as Prefect sends them to a process, or `dask`), and the file.
"""

import asyncio
import inspect
import sys
from contextlib import suppress
from pathlib import Path

import cloudpickle
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow
from prefect.tasks import Task

from paradime_blocks import BoltRequestError


def refuse_arguments(task: Task) -> None:
    """Call a task's function with arguments that it must refuse before anything else."""
    signature = inspect.signature(task.fn)
    required = [each.name for each in signature.parameters.values() if each.default is each.empty]
    try:
        asyncio.run(task.fn(**dict.fromkeys([*required, "credentials"], object())))
    except BoltRequestError:
        return
    raise AssertionError(f"{task.name} took an object for an argument.")


def main(how: str, path: str) -> None:
    if how == "dask":
        from distributed.protocol import pickle

        loads = pickle.loads
    else:
        loads = cloudpickle.loads
    for name, runnable in loads(Path(path).read_bytes()).items():
        if isinstance(runnable, Flow):
            with suppress(ParameterTypeError):
                runnable.validate_parameters({})
        elif isinstance(runnable, Task):
            refuse_arguments(runnable)
        else:
            inspect.signature(runnable)
        print(name)  # noqa: T201 - for the test


if __name__ == "__main__":
    main(*sys.argv[1:])
