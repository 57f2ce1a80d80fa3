"""What the package costs, beside a yardstick that does the same in a plain way: `bench.py [--only ROW ...]`.

Each measured program is a process of its own; Prefect's server and the simulator are others. A yardstick runs beside
what it is compared with, or in turn with it, so that both meet the same machine. The whole table is written to
BENCHMARKS.md; single rows are only printed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deployments"), str(ROOT / "tests"), str(ROOT)]

from paradime_blocks.testing import BoltSimulator, SimulatedCommand  # noqa: E402 - found by the line above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HERE = Path(__file__).parent
VENDORS_PYTHON = ROOT / ".venv-contract" / "bin" / "python"
ROUNDS = 2
AT_ONCE = 20
LENGTH = 60
RECORDED_WAITS = "vendor SDK, a thread each at 1 Hz: 1,505; 5.2 s (measured on 2026-11-28)"
RECORDED_LOGS = "vendor CLI: 1,442; 3.02 × the logs (measured on 2026-11-28)"
# Why rows fall short of their goals: what is left, and what it is for.
SHORT = """\
20 runs, requests: Prefect's engine sends 8 a run, and the yardstick has 7 of them. The ledger's four writes and their \
checks, which the runs share, are 6. The slot is 3, and 2 more the first time that a schedule runs. The pages are 4, \
the progress 3, the heartbeats 2, the tags and the call in the parent 2. The goal leaves 11 for all of that.
20 runs, CPU: half of it is the HTTP client's, for about 30 requests to Prefect and 30 to Bolt a run.
Instant run: Prefect's engine sends 10, the ledger 8, and each of the 7 pages is one. Each of the ledger's four writes \
waits 0.1 s before it is checked, which is half of the wall time.
Live logs: Bolt decides how many lines a page has; with 500, 35,000 lines are 70 pages. Each line of a page comes with \
the name of its stream, which makes the bytes 1.4 times the log.
Import: the row shows what an empty flow takes. Of the rest, a third is Prefect drawing the form, and a \
third is the models of Bolt's replies and of the blocks.
""".splitlines()
# A minute of a wait is counted from this time on, as in `programs.py`.
UNDER_WAY = 12


@dataclass
class Row:
    """A line of the table."""

    what: str
    yardstick: str
    ours: str
    goal: str


@dataclass
class Bench:
    """Starts the measured programs, each with its own simulator.

    Attributes:
        env: The environment of a program that uses the Prefect server.
        notes: What could not be measured, and what requests were sent.
    """

    env: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def start(
        self,
        name: str,
        *words: float | str,
        simulator: BoltSimulator | None = None,
        vendor: bool = False,
        logs: bool = False,
    ) -> Running:
        """Start a program; `Running.figures` waits for what it prints. With `logs`, Prefect gets its log lines."""
        env = {**self.env, **(simulator.environment() if simulator else {})}
        if logs:
            env["PREFECT_LOGGING_LEVEL"] = "INFO"
        file = "vendors_programs.py" if vendor else "programs.py"
        if vendor:
            env |= {"PARADIME_DISABLE_VERSION_CHECK": "1", "PARADIME_DISABLE_TELEMETRY": "1"}
        python = str(VENDORS_PYTHON) if vendor else sys.executable
        command = [python, str(HERE / file), name, *map(str, words)]
        return Running(
            subprocess.Popen(
                command, env=env, cwd=env["HOME"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )


@dataclass
class Running:
    """A program that has been started."""

    process: subprocess.Popen[bytes]

    def figures(self) -> dict[str, Any]:
        """Wait for the end of the program, and return what it has printed last."""
        out, errors = self.process.communicate(timeout=900)
        if self.process.returncode:
            raise RuntimeError(errors.decode()[-4000:])
        figures: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
        return figures


def bolt(stack: ExitStack, count: int, seconds: float, **command: Any) -> BoltSimulator:
    """A simulator with so many schedules, each of one command of this length."""
    simulator = stack.enter_context(BoltSimulator(speed=1))
    for n in range(count):
        add_schedule(simulator, n, seconds, **command)
    return simulator


def add_schedule(simulator: BoltSimulator, name: object, seconds: float, **command: Any) -> None:
    """Add a schedule of one command of this length."""
    commands = [SimulatedCommand("dbt run", duration_seconds=seconds, **command)]
    simulator.add_schedule(f"run-{name}", commands=commands, setup_commands=False, starting_seconds=0)


def waiting(bench: Bench) -> Iterable[Row]:
    """Many runs at once, one run alone, and sub-flows that sleep, all at the same time."""
    ours, theirs, single = [], [], []
    for _ in range(ROUNDS):
        with ExitStack() as stack:
            many = bench.start("waiting", AT_ONCE, simulator=bolt(stack, AT_ONCE, LENGTH))
            sleeping = bench.start("sleeping", AT_ONCE, LENGTH)
            long = UNDER_WAY + 65
            alone = [
                bench.start(name, n, simulator=bolt(stack, 1, long, stdout=text), logs=bool(text))
                for name, n, text in (("one", 0, ""), ("waiting", 1, ""), ("one", 0, "line\n" * 100))
            ]
            ours.append(many.figures())
            theirs.append(sleeping.figures())
            single.append([each.figures()["minute"] for each in alone])
    bench.notes.append(f"Requests of {AT_ONCE} waiting runs: {asked(ours[-1])}")
    requests, sleeps = median(ours, "requests"), median(theirs, "requests")
    cpu, plain = median(ours, "cpu"), median(theirs, "cpu")
    what = f"{AT_ONCE} `run_schedule` of {LENGTH} s at once in one process"
    yard = f"{AT_ONCE} sub-flows that sleep {LENGTH} s"
    yield Row(
        f"{what}: requests to Prefect",
        f"{yard}: {sleeps:.0f}",
        times(requests, sleeps, ".0f"),
        "at most 2.5 ×",
    )
    yield Row("… CPU", f"{plain:.1f} s", times(cpu, plain, ".1f", " s"), "at most 4 ×")
    top, sub, printing = (statistics.median(each) for each in zip(*single, strict=True))
    yield Row(
        "one run waiting: requests to Prefect a minute",
        "–",
        f"{top:.0f} at top level, {sub:.0f} as a sub-flow; {printing:.0f} while it prints",
        "at most 6",
    )


def growth(bench: Bench) -> Iterable[Row]:
    """1, 10 and 50 runs at once: requests and CPU a run."""
    lines = []
    for count in (1, 10, 50):
        with ExitStack() as stack:
            found = bench.start("waiting", count, simulator=bolt(stack, count, 20)).figures()
        lines.append(f"{count}: {found['requests'] / count:.1f} requests, {found['cpu'] / count:.2f} s")
    yield Row(
        "1, 10, 50 runs of 20 s at once: requests to Prefect and CPU a run", "–", "; ".join(lines), "falls"
    )


def sdk_waits(bench: Bench) -> Iterable[Row]:
    """Waits without Prefect, beside the vendor's SDK."""
    count = 100
    with ExitStack() as stack:
        simulators = [bolt(stack, count, 15) for _ in range(1 + has_vendor(bench))]
        programs = [
            bench.start("waits", *ids_of(simulator, count), simulator=simulator, vendor=n == 1)
            for n, simulator in enumerate(simulators)
        ]
        cpu = [program.figures()["cpu"] for program in programs]
        sent = [polls_of(each) for each in simulators]
    yardstick = (
        f"vendor SDK, a thread each at 1 Hz: {sent[1]}; {cpu[1]:.1f} s" if len(cpu) > 1 else RECORDED_WAITS
    )
    ours = f"{sent[0]}; {cpu[0]:.1f} s"
    if len(cpu) > 1:
        ours += f" (1/{sent[1] / max(1, sent[0]):.0f}; 1/{cpu[1] / cpu[0]:.1f})"
    yield Row(
        f"{count} waits of 15 s, one set of credentials: status requests; CPU",
        yardstick,
        ours,
        "at most 1/50; at most 1/5",
    )


def ids_of(simulator: BoltSimulator, count: int) -> list[int]:
    """Start a run of each schedule."""
    return [simulator.start_run(f"run-{n}") for n in range(count)]


def has_vendor(bench: Bench) -> bool:
    """Whether the vendor's SDK is installed."""
    if VENDORS_PYTHON.exists():
        return True
    note = "The vendor's SDK is not installed (`make bench` installs it): its figures are recorded ones."
    bench.notes += [] if note in bench.notes else [note]
    return False


def polls_of(simulator: BoltSimulator) -> int:
    """How many requests asked for the state of runs. One request may ask for many."""
    return sum(any("Status" in name for name in request.operations) for request in simulator.requests)


def instant(bench: Bench) -> Iterable[Row]:
    """A run that ends at once, in turn with three empty tasks."""
    rounds = 5
    # The URLs of the files are valid for a while in real time, too.
    with BoltSimulator(speed=10_000, resource_url_seconds=1e6) as simulator:
        files = {f"target/{name}.json": "{}" for name in ("manifest", "run_results", "catalog")}
        commands = [SimulatedCommand("dbt seed"), SimulatedCommand("dbt build", resources=files)]
        simulator.add_schedule("run-0", commands=commands)
        found = bench.start("instant", rounds, simulator=simulator).figures()
        files_read = sum("resource" in request.operations for request in simulator.requests)
        asked_bolt = len(simulator.requests) - polls_of(simulator) - files_read
    ours, tasks = found["ours"], found["tasks"]
    requests, empty = (statistics.median(each[0] for each in those) for those in (ours, tasks))
    seconds, plain = (statistics.median(each[1] for each in those) for those in (ours, tasks))
    bench.notes.append(f"Requests of an instant run: {words(ours[-1][2])}")
    yield Row(
        "instant run (4 commands, 3 files): requests to Bolt, polls aside",
        "–",
        f"{asked_bolt / (rounds + 1):.0f}, and {files_read / (rounds + 1):.0f} downloads of dbt's files",
        "at most 5",
    )
    yield Row(
        "… requests to Prefect; wall time",
        f"three empty tasks: {empty:.0f}; {plain:.2f} s",
        f"{requests:.0f}; {seconds:.2f} s ({seconds / plain:.1f} ×)",
        "at most 20; at most 2.5 ×",
    )


def live_logs(bench: Bench) -> Iterable[Row]:
    """A run of half a minute that prints 3 MB, beside the vendor's command line."""
    text = "".join(
        f"12:00:00  {n:>6} of 35000 OK created sql table model main.orders ........ [OK in 0.10s]\n"
        for n in range(35_000)
    )
    shown = []
    with ExitStack() as stack:
        simulators = [bolt(stack, 1, 30, stdout=text) for _ in range(1 + has_vendor(bench))]
        programs = [
            bench.start("logs", 0, simulator=simulator, vendor=n == 1)
            for n, simulator in enumerate(simulators)
        ]
        for program, simulator in zip(programs, simulators, strict=True):
            program.figures()
            size = sum(r.bytes for r in simulator.requests)
            shown.append(f"{len(simulator.requests):,}; {size / len(text):.2f} × the logs")
    yield Row(
        f"30 s run with {len(text) / 1e6:.0f} MB of logs, live: requests to Bolt; bytes",
        f"vendor CLI: {shown[1]}" if len(shown) > 1 else RECORDED_LOGS,
        shown[0],
        "at most 60; at most 1.15 ×",
    )


def ends(bench: Bench) -> Iterable[Row]:
    """How late the end of a run is known."""
    lengths = (5, 8, 15, 40)
    with ExitStack() as stack:
        simulator = bolt(stack, 0, 0)
        for length in lengths:
            add_schedule(simulator, length, length)
        late = bench.start("ends", *lengths, simulator=simulator).figures()["late"]
    first = ", ".join(f"{each[0]:.1f}" for each in late)
    later = [seconds for each in late for seconds in each[1:]]
    yield Row(
        "end of a run until it is known: 5, 8, 15, 40 s runs",
        "–",
        f"{first} s; median {statistics.median(each[0] for each in late):.2f} s; usual duration known: "
        f"median {statistics.median(later):.2f} s",
        "median 0.5 s; 1 s where the usual duration is known",
    )


def first_hour(_: Bench) -> Iterable[Row]:
    """The polls of one run of an hour, in virtual time."""
    from support.credentials import credentials_for
    from support.in_process import BoltInProcess, bolt_in_process
    from support.virtual_time import VirtualTimeLoop, virtual_time

    from paradime_blocks import BoltRun

    async def an_hour() -> int:
        simulator = BoltInProcess(speed=1)
        with simulator:
            add_schedule(simulator, 0, 3600)
            run_id = simulator.start_run("run-0")
            await BoltRun(run_id=run_id, credentials=credentials_for(simulator)).await_for_completion()
            return polls_of(simulator)

    with virtual_time(), bolt_in_process():
        loop = VirtualTimeLoop()
        try:
            polls = loop.run_until_complete(an_hour())
        finally:
            loop.close()
    yield Row("polls in the first hour of a run", "–", f"{polls}", "at most 200")


def imports(bench: Bench) -> Iterable[Row]:
    """Import times, in turn. A flow that does nothing shows what a flow needs at least."""
    code = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    empty = "from prefect import flow; flow(lambda: None, name='empty')"
    took: dict[str, list[float]] = {
        each: [] for each in ("import prefect", empty, "import paradime_flows.run_schedule")
    }
    for turn in range(6):
        for words in took:
            done = subprocess.run(
                [sys.executable, "-c", code.format(words)], env=bench.env, capture_output=True, check=True
            )
            # The first round fills the caches of the disk.
            took[words] += [float(done.stdout)] if turn else []
    theirs, least, ours = took.values()
    ratio, floor = (
        statistics.median(a / b for a, b in zip(each, theirs, strict=True)) for each in (ours, least)
    )
    yield Row(
        "`import paradime_flows.run_schedule`",
        f"`import prefect`: {statistics.median(theirs):.2f} s; with an empty flow: {floor:.2f} ×",
        f"{ratio:.2f} ×",
        "at most 1.08 ×",
    )


def memory(bench: Bench) -> Iterable[Row]:
    """The memory of an archive of large logs, beside one small run archived (`archive_memory.py`)."""
    peaks = []
    for count, megabytes in ((20, 10), (1, 100)):
        done = subprocess.run(
            [sys.executable, str(HERE / "archive_memory.py"), str(count), str(megabytes)],
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "PREFECT_LOGGING_LEVEL": "ERROR"},
        )
        peaks.append(done.stdout.partition("-> ")[2].partition(",")[0])
    del bench
    yield Row(
        "200 MB of logs, archived: peak memory; one log of 100 MB",
        "–",
        "; ".join(peaks),
        "at most 250 MB either way",
    )


def median(figures: list[dict[str, Any]], name: str) -> float:
    """The median of one figure."""
    return float(statistics.median(each[name] for each in figures))


def times(ours: float, theirs: float, form: str, unit: str = "") -> str:
    """Our figure, and how many times the yardstick it is."""
    return f"{ours:{form}}{unit} ({ours / theirs:.1f} ×)"


def asked(figures: dict[str, Any]) -> str:
    """What was asked most."""
    return words(figures["kinds"])


def words(kinds: Mapping[str, int]) -> str:
    """What was asked most."""
    return ", ".join(f"{count} {kind}" for kind, count in list(kinds.items())[:10])


ROWS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    "waiting": waiting,
    "growth": growth,
    "sdk": sdk_waits,
    "instant": instant,
    "logs": live_logs,
    "ends": ends,
    "polls": first_hour,
    "imports": imports,
    "memory": memory,
}


def suspended(bench: Bench) -> Iterable[Row]:
    """A run of ten minutes, held and suspended. It is left out of the table's ten minutes: `--only suspended`."""
    length = 600.0
    with ExitStack() as stack:
        held, without = (
            bench.start("long", wait, simulator=bolt(stack, 1, length)) for wait in ("hold", "suspend")
        )
        in_process, freed = held.figures(), without.figures()
    yield Row(
        "a run of ten minutes of a deployment: seconds with a process; requests to Prefect; CPU",
        f'`wait="hold"`: {in_process["held"]:.0f} s; {in_process["requests"]}; {in_process["cpu"]:.1f} s',
        f'`wait="suspend"`: {freed["held"]:.0f} s; {freed["requests"]}; {freed["cpu"]:.1f} s',
        "less",
    )


# These rows take longer than all others together.
LONG_ROWS: dict[str, Callable[[Bench], Iterable[Row]]] = {"suspended": suspended}


def table(rows: list[Row], notes: list[str], took: float) -> str:
    """BENCHMARKS.md."""
    import prefect

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        "# What it costs",
        "",
        (
            f"Measured by `make bench` on {dt.datetime.now(dt.timezone.utc).date()}: {machine}, "
            f"Prefect {prefect.__version__}, its server with SQLite in memory and the simulator on the same machine; "
            f"{took / 60:.0f} minutes. The yardstick ran beside it."
        ),
        "",
        "| what | yardstick | this package | goal |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.yardstick} | {row.ours} | {row.goal} |" for row in rows),
        "",
        *(f"- {note}" for note in [*notes, *SHORT]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*ROWS, *LONG_ROWS], help="only these rows; nothing is written"
    )
    only = parser.parse_args().only
    began = time.monotonic()
    rows: list[Row] = []
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True))
        )
        os.chdir(home)
        from local_server import LocalPrefectServer

        server = stack.enter_context(LocalPrefectServer(home, in_memory=True))
        bench = Bench({**server.env, "HOME": str(home), "PREFECT_LOGGING_LEVEL": "ERROR"})
        for name in only or ROWS:
            for row in {**ROWS, **LONG_ROWS}[name](bench):
                rows.append(row)
                print(f"{row.what}: {row.ours}   [{row.yardstick}; {row.goal}]", flush=True)
        text = table(rows, bench.notes, time.monotonic() - began)
    print(text)
    if not only:
        (ROOT / "BENCHMARKS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
