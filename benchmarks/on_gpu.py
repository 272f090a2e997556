"""Everything that needs a GPU, in steps, from a checkout; the package need not be installed.

    python3 benchmarks/on_gpu.py suite mutants bench sanitizer peers --out DIR

``suite``: every kernel check on every op. ``mutants``: every planted fault of the layer against the check that it
names, those that need a GPU among them; ``--fault 'kernels-extend-*'`` takes some. ``bench``: `gaugeblock bench
kernels`, then the latency check and its faults. ``sanitizer``: every op's calls under compute-sanitizer. ``peers``: the
suite on each installed peer. ``tests``: the tests of our kernels that need a GPU; ``hybrid``: those of placements and
lanes. ``prefill``: `gaugeblock bench prefill` at 8192 tokens. ``place``: `gaugeblock place` at two budgets.
``similarity``: `gaugeblock bench similarity`; ``alarms``: its false alarms on twins of the model. ``profile``:
`gaugeblock profile`. The last four take ``--model``. ``suite``, ``mutants``, ``sanitizer`` and ``peers`` share the
workers when they are named one after the other; the others have the card alone.

Each step has a time limit (``--seconds bench=400``; steps that share the workers add theirs up) and writes what it has
as it goes: ``checks.json``, and the three files of the bench. ``--site DIR``: a folder as ``pip download`` leaves it
(wheels, and ``site/`` with unpacked packages), installed for this run into a temporary one.

Exit code 1: something failed, survived, or missed its gate.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_pool import COMPILE, Task, ops_of, pieces, run_all

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"suite": 240.0, "mutants": 220.0, "bench": 400.0, "sanitizer": 170.0, "peers": 300.0, "prefill": 120.0}
SECONDS |= {"tests": 150.0, "hybrid": 150.0, "place": 150.0, "similarity": 300.0, "alarms": 300.0, "profile": 280.0}
ALONE = ("KER-018", "KER-022")  # compute-sanitizer, and times: each has a step of its own
PEERS = ("sgl_kernel", "flashinfer", "liger_kernel", "torch_compile")
TASK_SECONDS = 90.0
PEER_SECONDS = 270.0  # a library that compiles on first use takes minutes; ended early, it begins anew each time
BUDGETS = ("100MiB", "400MiB")  # of `gaugeblock place`: some of a small model's operators, and most
LATENCY = "KER-022"
LATENCY_SECONDS = 100.0  # of the bench step, for that check and its faults


def main() -> int:
    """Run the chosen steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=[*SECONDS, "warm"])
    parser.add_argument("--out", type=Path, default=Path("gaugeblock-out"))
    parser.add_argument("--site", type=Path, help="wheels of the peers")
    parser.add_argument("--seconds", action="append", default=[], metavar="STEP=N")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 4)
    parser.add_argument("--model", type=Path, help="a Hugging Face folder; the kit's tiny model by default")
    parser.add_argument("--peer", action="append", help=f"of {', '.join(PEERS)}; all by default")
    parser.add_argument("--check", action="append", help="only these checks, of the steps that share workers")
    parser.add_argument("--fault", action="append", metavar="PATTERN", help="only these faults, of the step mutants")
    options = parser.parse_args()
    make_importable()
    if options.site:
        install(options.site)
    if options.steps == ["warm"]:
        return warm()
    options.out.mkdir(parents=True, exist_ok=True)
    limits = SECONDS | {step: float(number) for step, _, number in (s.partition("=") for s in options.seconds)}
    background = None
    if "bench" in options.steps:
        background = subprocess.Popen([sys.executable, __file__, "warm"], start_new_session=True)
    fine = True
    for alone, group in itertools.groupby(options.steps, lambda step: "" if step in POOLED else step):
        names = list(group)
        begin = time.monotonic()
        deadline = begin + sum(limits[name] for name in names)
        if not alone:
            fine &= pool(options, names, deadline)
        elif alone != "bench":
            fine &= commands(alone, options, deadline)
        else:
            prepare_bench(options, names != options.steps[: len(names)])
            background = finished(background, 120) if background is not None else None
            fine &= bench(options, deadline)
        print(f"{' '.join(names)}: {time.monotonic() - begin:.0f} s", flush=True)
    if background is not None:
        finished(background, 0)
    return 0 if fine else 1


def make_importable() -> None:
    """Let ``gaugeblock`` be this checkout where it is not installed: a folder with a link of that name."""
    try:
        import gaugeblock.kernels  # noqa: F401 # only whether it is there
    except ModuleNotFoundError:
        namespace = Path(tempfile.mkdtemp(prefix="gaugeblock-path-"))
        (namespace / "gaugeblock").symlink_to(ROOT)
        sys.path.insert(0, str(namespace))
        add_to_path(str(namespace))


def add_to_path(folder: str) -> None:
    """Put a folder where the processes that this one starts look for modules."""
    rest = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([rest] if rest else [])])


def install(source: Path) -> None:
    """Install wheels and unpacked packages into a temporary folder on the path."""
    site = Path(tempfile.mkdtemp(prefix="gaugeblock-peers-"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(site), *map(str, source.glob("*.whl"))], check=True)
    if (source / "site").is_dir():
        shutil.copytree(source / "site", site, dirs_exist_ok=True)
    sys.path.insert(0, str(site))
    add_to_path(str(site))


def warm() -> int:
    """Compile what the peers need, while other steps use the GPU."""
    from gaugeblock.conformance.bench.implementations import load_peers, warm_up
    from gaugeblock.conformance.bench.workloads import workloads
    from gaugeblock.kernels.contract import load_contracts

    contracts = load_contracts()
    first = {w.op: (contracts[w.op], w) for w in workloads() if w.op in contracts}
    warm_up(load_peers(), list(first.values()), "cuda", lambda line: print(line, flush=True))
    return 0


def finished(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a background process, then end it."""
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)


class Results:
    """The results of all steps in ``checks.json``, written as they come."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checks.json"
        self.begin = self.written = time.monotonic()
        self.steps: dict[str, list[dict[str, Any]]] = {}

    def take(self, result: dict[str, Any]) -> None:
        """Keep one result and, every few seconds, write all."""
        self.steps.setdefault(result["step"], []).append(result)
        if time.monotonic() - self.written > 5:
            self.write(False)

    def write(self, complete: bool) -> None:
        """Write the file; steps of an earlier pool stay in it."""
        self.written = time.monotonic()
        data = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"schema_version": 1}
        for step, found in self.steps.items():
            counts = Counter(result["outcome"] for result in found)
            results = sorted(found, key=_order)
            data[step] = {"counts": counts, "results": results, "complete": complete}
        data["seconds"] = round(self.written - self.begin, 1)
        self.path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _order(result: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...], int]:
    return result["module"] or "", result["fault"] or "", result["check"], result["ops"], result["piece"]


def pool(options: argparse.Namespace, steps: list[str], deadline: float) -> bool:
    """Run steps over the same workers, none of which waits for another step's last task; then report each."""
    tasks = compile_tasks() if {"suite", "sanitizer"} & set(steps) else []
    tasks += timed_tasks() if "bench" in options.steps else []
    for step in sorted(steps, key=list(POOLED).index):
        tasks += POOLED[step][0](options)
    tasks = [task for task in tasks if not options.check or task.check in options.check]
    results = Results(options.out)
    run_all(tasks, options.workers, deadline, results.take)
    results.write(True)
    fine = True
    for step in steps:
        found = results.steps.get(step, [])
        print(f"{step}: {dict(Counter(result['outcome'] for result in found))}")
        fine &= POOLED[step][1](found)
    return fine


def told(result: dict[str, Any]) -> str:
    """Return one result as a line."""
    where = " ".join([result["check"], *result["ops"][:1], result["fault"] or ""]).strip()
    return f"  {where}: {result['outcome']}: {result['message'][:240]}"


def suite_tasks(step: str = "suite", module: str | None = None) -> list[Task]:
    """Return every check on every op: the slow ones first, so that none is left alone at the end.

    A peer's come last: there what compiles for every drawn shape must not keep the others from their turn.
    """
    from gaugeblock.conformance.check import load_checks

    checks = [check_id for check_id in load_checks(("kernels",))[0] if check_id not in ALONE]
    slow = ("KER-013", "KER-016")
    checks.sort(key=lambda check_id: (check_id in slow) == (module is None), reverse=True)
    seconds = TASK_SECONDS if module is None else PEER_SECONDS
    return [Task(step, module, check_id, (op,), seconds) for check_id in checks for op in ops_of(check_id)]


def compile_tasks() -> list[Task]:
    """Return the calls that compile the reference's kernels: a hundred at once instead of one after the other."""
    from gaugeblock.kernels.contract import load_contracts

    ops = sorted(load_contracts().values(), key=lambda op: "attention" not in op.name and "linear" not in op.name)
    return [
        Task(COMPILE, None, COMPILE, (op.name,), TASK_SECONDS, piece=piece) for op in ops for piece in range(pieces(op))
    ]


def timed_tasks() -> list[Task]:
    """Return the calls that compile what the bench times."""
    from gaugeblock.conformance.bench.workloads import WORKLOADS

    return [Task("bench", None, COMPILE, (w.op,), 2 * TASK_SECONDS, piece=piece) for piece, w in enumerate(WORKLOADS)]


def prepare_bench(options: argparse.Namespace, done: bool) -> None:
    """Compile what the bench times, side by side, unless an earlier pool has."""
    if not done:
        results = Results(options.out)
        run_all(timed_tasks(), options.workers, time.monotonic() + 2 * TASK_SECONDS, results.take)
        results.write(True)


def suite_report(found: list[dict[str, Any]]) -> bool:
    """Print what is not right."""
    bad = [result for result in found if result["outcome"] not in ("passed", "unsupported")]
    for result in bad:
        print(told(result))
    return not bad


def mutant_tasks(step: str = "mutants", check: str = "", patterns: Iterable[str] | None = None) -> list[Task]:
    """Return every planted fault against the check that it names; those of the latency check only when asked.

    ``patterns``: of the ids of those that are wanted, None for all. What needs another machine than this is left out.
    """
    from gaugeblock.fixtures.faults.record import load_faults
    from gaugeblock.fixtures.needs import lacking

    faults = [f for f in load_faults().values() if f.layer == "kernels" and (f.check == check or not check)]
    if patterns is not None:
        faults = [f for f in faults if any(fnmatch.fnmatchcase(f.id, pattern) for pattern in patterns)]
    for fault in faults:
        if why := lacking(fault):
            print(f"{fault.id} is not run: {why}", flush=True)
    return [
        Task(step, None, f.check, _near(f.id, ops_of(f.check)), 2 * TASK_SECONDS, f.id, f.message)
        for f in faults
        if (check or f.check != LATENCY) and not lacking(f)
    ]


def mutant_report(found: list[dict[str, Any]]) -> bool:
    """Print the score of each op, and what survived."""
    homes = {result["fault"]: home_of(result["fault"]) for result in found}
    for op in sorted(set(homes.values())):
        mine = [result for result in found if homes[result["fault"]] == op]
        print(f"  {op}: {sum(result['outcome'] == 'named' for result in mine)} of {len(mine)} killed as named")
    bad = [result for result in found if result["outcome"] != "named"]
    for result in bad:
        print(told(result))
    return not bad


def _near(fault_id: str, ops: Iterable[str]) -> tuple[str, ...]:
    """Return the op whose file a fault changes, or all where several share what it changes."""
    home = home_of(fault_id)
    return (home,) if home in ops else tuple(ops)


def home_of(fault_id: str) -> str:
    """Return the op whose file a fault changes, or ``several``; a fault that can't be planted is its worker's error."""
    from gaugeblock.fixtures.errors import KitError
    from gaugeblock.fixtures.targets.kernels import op_of

    try:
        return op_of(fault_id) or "several"
    except KitError:
        return "several"


def bench(options: argparse.Namespace, deadline: float) -> bool:
    """Run `gaugeblock bench kernels` in a process of its own, then the latency check's faults, one at a time."""
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "bench", "kernels", "--out", str(options.out)]
    child = subprocess.Popen(command, start_new_session=True)
    finished(child, deadline - time.monotonic() - LATENCY_SECONDS)
    faulty = mutant_tasks("latency", LATENCY)
    right = [Task("latency", None, LATENCY, ops, TASK_SECONDS) for ops in dict.fromkeys(task.ops for task in faulty)]
    results = Results(options.out)
    run_all([*right, *faulty], 1, deadline, results.take)
    results.write(True)
    found = results.steps.get("latency", [])
    for result in found:
        print(told(result))
    return child.returncode == 0 and all(result["outcome"] in ("passed", "named") for result in found)


def commands(step: str, options: argparse.Namespace, deadline: float) -> bool:
    """Run a step that is commands of the kit or a script, one after the other; each has what time is left."""
    fine = True
    for command in COMMANDS[step](options):
        print("$", " ".join(command), flush=True)
        child = subprocess.Popen([sys.executable, *command], start_new_session=True, cwd=ROOT)
        finished(child, max(deadline - time.monotonic(), 1))
        print(f"exit code {child.returncode}", flush=True)
        fine &= child.returncode == 0
    return fine


def kit(*words: str) -> list[str]:
    """Return a command of the kit."""
    return ["-m", "gaugeblock.conformance.cli.main", *words]


def gpu_tests(folder: str) -> list[str]:
    """Return the command that runs a folder's tests that need a GPU."""
    return ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", folder]


def prefill(options: argparse.Namespace) -> list[list[str]]:
    """Sweep chunked prefill in the shape of SmolLM2-135M; the windows lie far below the prompt."""
    sizes = ["--tokens", "8192", "--chunk", "512", "--chunk", "2048", "--window", "1024", "--window", "4096"]
    ways = ["--shape", "smollm2-135m", "--dtype", "bf16", "--rounds", "5", "--out", str(options.out)]
    return [kit("bench", "prefill", *sizes, *ways)]


def model(options: argparse.Namespace) -> list[str]:
    """Return the flag of a model folder, if there is one."""
    return [] if options.model is None else ["--model", str(options.model)]


COMMANDS: dict[str, Callable[[argparse.Namespace], list[list[str]]]] = {
    "prefill": prefill,
    "tests": lambda o: [gpu_tests("tests/kernels")],
    "hybrid": lambda o: [gpu_tests("tests/reference_hybrid")],
    "place": lambda o: [
        kit("place", *model(o), "--device", "cuda", "--device-budget", budget, "--out", str(o.out / f"place-{budget}"))
        for budget in BUDGETS
    ],
    "similarity": lambda o: [kit("bench", "similarity", *model(o), "--device", "cuda", "--out", str(o.out))],
    "alarms": lambda o: [
        ["benchmarks/similarity_alarms.py", *model(o), "--device", "cuda", "--out", str(o.out / "alarms.jsonl")]
    ],
    "profile": lambda o: [kit("profile", *model(o), "--device", "cuda", "--out", str(o.out / "profile"))],
}
"""The steps that have the card alone, but for the bench."""


def sanitizer_tasks(options: argparse.Namespace) -> list[Task]:
    """Return every op's small calls under compute-sanitizer."""
    return [Task("sanitizer", None, "KER-018", (op,), SECONDS["sanitizer"]) for op in ops_of("KER-018")]


def peer_tasks(options: argparse.Namespace) -> list[Task]:
    """Return the suite on each peer that can be imported."""
    modules = [f"gaugeblock.fixtures.peers.{name}" for name in options.peer or PEERS]
    return [task for module in modules if importable(module) for task in suite_tasks("peers", module)]


def peer_report(found: list[dict[str, Any]]) -> bool:
    """Print what was found in each; it is a finding, no failure of this run."""
    for module in dict.fromkeys(result["module"] for result in found):
        mine = [result for result in found if result["module"] == module]
        print(f"  {module}: {dict(Counter(result['outcome'] for result in mine))}")
        for result in mine:
            if result["outcome"] in ("failed", "error", "broken"):
                print("  " + told(result)[:200])
    return True


def importable(module: str | None) -> bool:
    """Whether an adapter's library is there."""
    if module not in _importable:
        probe = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=180)
        _importable[module] = probe.returncode == 0
        if probe.returncode:
            print(f"{module}: {probe.stderr.strip().splitlines()[-1]}", flush=True)
    return _importable[module]


_importable: dict[str | None, bool] = {}

POOLED: dict[str, tuple[Callable[[argparse.Namespace], list[Task]], Callable[[list[dict[str, Any]]], bool]]] = {
    "sanitizer": (sanitizer_tasks, suite_report),
    "suite": (lambda options: suite_tasks(), suite_report),
    "mutants": (lambda options: mutant_tasks(patterns=options.fault), mutant_report),
    "peers": (peer_tasks, peer_report),
}
"""The steps that share the workers, in the order in which their tasks are taken: the longest first."""

if __name__ == "__main__":
    sys.exit(main())
