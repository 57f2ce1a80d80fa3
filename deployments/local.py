"""`make up` and `make down`: Prefect's server, the deployments of `prefect.yaml` and a worker on this machine.

`up` starts them in the background, waits until a flow can be started, and says where. `down` stops them. Prefect's
database and the logs stay in the folder `.local` for the next `up`.

If PARADIME_API_ENDPOINT, PARADIME_API_KEY and PARADIME_API_SECRET are set, in the environment or in a `.env` file, the
flows run schedules of the real service. Otherwise a simulated Bolt has the sample schedules: `failing` fails, and all
others succeed. Scripts can use the same server and the same Bolt: the file `.local/environment` has the variables.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from local_server import LocalPrefectServer, ServerDidNotStartError
from recorded import add_recorded_samples

ROOT = Path(__file__).resolve().parents[1]
PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
# A test runs its own copy beside a person's.
FOLDER = Path(os.environ.get("PARADIME_LOCAL_FOLDER") or ROOT / ".local")
READY, LOG, PID = FOLDER / "ready.json", FOLDER / "up.log", FOLDER / "pid"
# What a shell has to set for a script that uses the same server and the same Bolt.
ENVIRONMENT = FOLDER / "environment"
POOL, QUEUE = "bolt", "urgent"
PORT = 4200
POLL_SECONDS = 0.2
STOP_SECONDS = 60.0


class LocalError(Exception):
    """A part did not start. The message says which part, and where its log is."""


def up() -> None:
    """Start everything in the background, and return when a flow can be started."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if _pid() is None:
        READY.unlink(missing_ok=True)
        print("Starting Prefect's server, a worker and the deployments, which takes a minute or two ...")
        with LOG.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                # In a session of its own, it stays when this terminal is closed.
                start_new_session=True,
            )
        PID.write_text(str(process.pid), encoding="utf-8")
        while _ready() is None:
            if process.poll() is not None:
                PID.unlink(missing_ok=True)
                raise LocalError(f"The start failed. The log, {LOG}:\n{_tail(LOG)}")
            time.sleep(POLL_SECONDS)
    else:
        print("Everything is running already.")
    ready = _ready()
    if ready is None:
        raise LocalError(
            f"{READY} does not say where. Either the start has not ended, and you can try again in a minute, or "
            "another version wrote the file. Then run `make down`, and `make up` again."
        )
    print(how_to_start(**ready))


def how_to_start(ui: str, deployment: str, *, simulated: bool) -> str:
    """Return the text that `up` prints when a flow can be started.

    Args:
        ui: The address of Prefect's UI.
        deployment: The id of the deployment of run-schedule. A link leads there, because all deployments have the
            same name, and the page of a flow has no button to run the flow.
        simulated: Whether Bolt is simulated.
    """
    schedules = (
        "`daily`, `hourly`, `extract`, `orders`, `customers`, `publish` succeed; `failing` fails (on purpose)"
    )
    prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
    return (
        f"\n  Run a schedule:  {ui}/deployments/deployment/{deployment}  (Run → Custom run)\n"
        f"  The schedules:   {schedules if simulated else 'those of your workspace'}\n"
        f"  Or type:         PREFECT_API_URL={ui}/api {prefect} deployment run run-schedule/bolt "
        f"--param schedule_name={'daily' if simulated else 'NAME'}\n"
        f"  In your shell:   . {shlex.quote(str(ENVIRONMENT))}  (then your own scripts use this server"
        f"{' and this Bolt' if simulated else ''})\n"
        f"  Other flows:     {ui}/deployments  (click `bolt` above a flow's name, then Run)\n"
        f"  The runs:        {ui}/runs\n"
        f"  The log:         {LOG}\n"
        "  Stop it all:     make down"
    )


def down() -> None:
    """Stop what `up` has started. Flow runs stop, too."""
    pid = _pid()
    if pid is None:
        print("Nothing is running.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _pid() is not None:
        if time.monotonic() >= deadline:
            raise LocalError(f"Process {pid} is still stopping. Its log is {LOG}.")
        time.sleep(POLL_SECONDS)
    PID.unlink(missing_ok=True)
    print(f"Stopped. The next `make up` shows the old flow runs again: they are in {FOLDER}.")
    ready = _ready()
    if ready is not None and ready["simulated"]:
        print("The simulated Bolt is then a new one, which does not know the old Bolt runs.")
    elif ready is not None:
        print("If a Bolt run has not ended, it is still running in Paradime. The next `make up` cancels it.")


def run() -> None:
    """Start everything, write the file that says so, and wait for SIGTERM."""
    with ExitStack() as stack:
        bolt, simulated = _bolt(stack)
        print("Starting Prefect's server", flush=True)
        server = stack.enter_context(LocalPrefectServer(FOLDER / "prefect", ui=True, port=PORT))
        # The credentials are in the environment of the worker alone, and not in Prefect's database.
        env = server.env | bolt
        _prefect(env, "work-pool", "create", "--type", "process", "--overwrite", POOL)
        print("Deploying the flows", flush=True)
        _prefect(env, "--no-prompt", "deploy", "--prefect-file", str(PREFECT_YAML), "--all")
        _prefect(env, "api", "PATCH", f"/work_pools/{POOL}/queues/{QUEUE}", "--data", '{"priority": 1}')
        print("Starting a worker", flush=True)
        worker = _start(env, "worker", "start", "--pool", POOL)
        stack.callback(_stop, worker)
        _wait_for_worker(server, worker)
        of_flow = {"flows": {"name": {"any_": ["run-schedule"]}}, "deployments": {"name": {"any_": [POOL]}}}
        (deployment,) = server.post("deployments/filter", of_flow)
        ready = {"ui": server.ui_url, "deployment": deployment["id"], "simulated": simulated}
        variables = {"PREFECT_API_URL": server.api_url} | (bolt if simulated else {})
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
        ENVIRONMENT.write_text("".join(lines), encoding="utf-8")
        draft = READY.with_suffix(".draft")
        draft.write_text(json.dumps(ready), encoding="utf-8")
        draft.rename(READY)
        worker.wait()
        raise LocalError(f"The worker ended with code {worker.returncode}.")


def _bolt(stack: ExitStack) -> tuple[dict[str, str], bool]:
    """Return the environment variables of the backend, and whether Bolt is simulated."""
    from paradime_blocks.settings import ParadimeSettings, read_settings

    settings, _ = read_settings(ParadimeSettings)
    if settings.api_endpoint is not None:
        given = settings.model_dump(exclude_none=True)
        values = {
            name: getattr(value, "get_secret_value", lambda v=value: str(v))()
            for name, value in given.items()
        }
        return {f"PARADIME_{name.upper()}": value for name, value in values.items()}, False
    from paradime_blocks.testing import BoltSimulator

    # Prefect's database keeps the flow runs of earlier simulators, so no two simulators may use the same run ids.
    simulator = stack.enter_context(BoltSimulator(first_run_id=int(time.time())))
    add_recorded_samples(simulator, seconds=4)
    return simulator.environment(), True


def _start(env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    # Prefect reads `.env` and `prefect.toml` in the working directory. It should not read those of the clone.
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *arguments], stdin=subprocess.DEVNULL, cwd=FOLDER, env=env
    )


def _prefect(env: dict[str, str], *arguments: str) -> None:
    if _start(env, *arguments).wait():
        raise LocalError(f"`prefect {' '.join(arguments)}` failed.")


def _wait_for_worker(server: LocalPrefectServer, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the server has heard from the worker, so that a flow run starts at once."""
    while not any(found["status"] == "ONLINE" for found in server.post(f"work_pools/{POOL}/workers/filter")):
        if worker.poll() is not None:
            raise LocalError(f"The worker ended with code {worker.returncode}.")
        time.sleep(POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _ready() -> dict[str, Any] | None:
    """Return the arguments of `how_to_start`; None if the file is missing, or if another version wrote it."""
    try:
        ready = json.loads(READY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ready if isinstance(ready, dict) and ready.keys() == {"ui", "deployment", "simulated"} else None


def _pid() -> int | None:
    """Return the id of the process that `up` has started; None if it has ended."""
    try:
        pid = int(PID.read_text(encoding="utf-8"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    try:
        # A child of ours that has ended is kept by the system until we ask for it.
        return None if os.waitpid(pid, os.WNOHANG)[0] == pid else pid
    except ChildProcessError:
        return pid


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command, and return the exit code."""
    commands = {"up": up, "down": down, "run": run}
    parser = argparse.ArgumentParser(
        description="Prefect with the deployments of this package, on this machine."
    )
    parser.add_argument("command", choices=commands, help="`run` is `up` in the foreground")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        commands[parser.parse_args().command]()
    except KeyboardInterrupt:
        print("Stopped.")
    except (LocalError, ServerDidNotStartError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
