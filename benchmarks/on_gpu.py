"""Everything that needs a GPU, in steps, from a checkout; the package need not be installed.

    python3 benchmarks/on_gpu.py suite mutants bench sanitizer peers --out DIR

``suite``: every kernel check on every op. ``mutants``: every planted fault of the layer against the check that it
names. ``bench``: `gaugeblock bench kernels`, then the latency check and its faults. ``sanitizer``: every op's small
calls under compute-sanitizer. ``peers``: the suite on each installed peer.

Each step has a time limit of its own (``--seconds bench=400``) and writes what it has as it goes: ``checks.json``, and
the three files of the bench. ``--site DIR``: a folder as ``pip download`` leaves it (wheels, and ``site/`` with
unpacked packages), installed for this run into a temporary one.

Exit code 1: something failed, survived, or missed its gate.
"""

from __future__ import annotations

import argparse
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
SECONDS = {"suite": 240.0, "mutants": 220.0, "bench": 400.0, "sanitizer": 170.0, "peers": 300.0}
ALONE = ("KER-018", "KER-022")  # compute-sanitizer, and times: each has a step of its own
PEERS = ("sgl_kernel", "flashinfer", "liger_kernel", "torch_compile")
TASK_SECONDS = 90.0
LATENCY = "KER-022"


def main() -> int:
    """Run the chosen steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=[*SECONDS, "warm"])
    parser.add_argument("--out", type=Path, default=Path("gaugeblock-out"))
    parser.add_argument("--site", type=Path, help="wheels of the peers")
    parser.add_argument("--seconds", action="append", default=[], metavar="STEP=N")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 4)
    parser.add_argument("--peer", action="append", help=f"of {', '.join(PEERS)}; all by default")
    options = parser.parse_args()
    make_importable()
    if options.site:
        install(options.site)
    if options.steps == ["warm"]:
        return warm()
    options.out.mkdir(parents=True, exist_ok=True)
    limits = SECONDS | {step: float(number) for step, _, number in (s.partition("=") for s in options.seconds)}
    background = None
    if {"bench", "peers"} & set(options.steps) and options.steps[0] not in ("bench", "peers"):
        background = subprocess.Popen([sys.executable, __file__, "warm"], start_new_session=True)
    steps: dict[str, Callable[[argparse.Namespace, float], bool]] = {
        "suite": suite, "mutants": mutants, "bench": bench, "sanitizer": sanitizer, "peers": peers,
    }  # fmt: skip
    fine = True
    for name in options.steps:
        begin = time.monotonic()
        if name in ("bench", "peers") and background is not None:
            background = finished(background, limits[name] / 2)
        fine &= steps[name](options, begin + limits[name])
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
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
    """The results of one step, in ``checks.json`` beside those of the other steps; written as they come."""

    def __init__(self, folder: Path, step: str) -> None:
        self.path, self.step = folder / "checks.json", step
        self.begin = self.written = time.monotonic()
        self.found: list[dict[str, Any]] = []

    def take(self, result: dict[str, Any]) -> None:
        """Keep one result and, every few seconds, write all."""
        self.found.append(result)
        if time.monotonic() - self.written > 5:
            self.write(False)

    def write(self, complete: bool) -> None:
        """Write the file."""
        self.written = time.monotonic()
        data = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"schema_version": 1}
        data[self.step] = {
            "seconds": round(self.written - self.begin, 1),
            "counts": Counter(result["outcome"] for result in self.found),
            "results": sorted(self.found, key=_order),
            "complete": complete,
        }
        self.path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _order(result: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...], int]:
    return result["module"] or "", result["fault"] or "", result["check"], result["ops"], result["piece"]


def work(options: argparse.Namespace, name: str, tasks: list[Task], deadline: float) -> Results:
    """Run tasks over the workers into a file of the step."""
    results = Results(options.out, name)
    run_all(tasks, options.workers, deadline, results.take)
    results.write(True)
    return results


def suite_tasks(module: str | None) -> list[Task]:
    """Return every check on every op: the slow ones first, so that none is left alone at the end.

    A peer's come last: there what compiles for every drawn shape must not keep the others from their turn.
    """
    from gaugeblock.conformance.check import load_checks

    checks = [check_id for check_id in load_checks(("kernels",))[0] if check_id not in ALONE]
    slow = ("KER-013", "KER-016")
    checks.sort(key=lambda check_id: (check_id in slow) == (module is None), reverse=True)
    return [Task(module, check_id, (op,), TASK_SECONDS) for check_id in checks for op in ops_of(check_id)]


def compile_tasks() -> list[Task]:
    """Return the calls that compile the reference's kernels: a hundred at once instead of one after the other."""
    from gaugeblock.kernels.contract import load_contracts

    ops = sorted(load_contracts().values(), key=lambda op: "attention" not in op.name and "linear" not in op.name)
    return [Task(None, COMPILE, (op.name,), TASK_SECONDS, piece=piece) for op in ops for piece in range(pieces(op))]


def suite(options: argparse.Namespace, deadline: float) -> bool:
    """Run every check on the reference, its kernels compiled side by side first."""
    compiled = work(options, COMPILE, compile_tasks(), deadline)
    print(f"compile: {time.monotonic() - compiled.begin:.0f} s, {dict(Counter(r['outcome'] for r in compiled.found))}")
    results = work(options, "suite", suite_tasks(None), deadline)
    bad = [r for r in results.found if r["outcome"] not in ("passed", "unsupported")]
    print(f"suite: {dict(Counter(r['outcome'] for r in results.found))}")
    for result in bad:
        print(f"  {result['check']} {result['ops'][0]}: {result['outcome']}: {result['message'][:300]}")
    return not bad


def mutants(options: argparse.Namespace, deadline: float) -> bool:
    """Run every planted fault against the check that it names; print the score of each op."""
    from gaugeblock.fixtures.faults.record import load_faults
    from gaugeblock.fixtures.targets.kernels import op_of

    faults = [f for f in load_faults().values() if f.layer == "kernels" and f.check != LATENCY]
    tasks = [Task(None, f.check, _near(f.id, ops_of(f.check)), 2 * TASK_SECONDS, f.id, f.message) for f in faults]
    results = work(options, "mutants", tasks, deadline)
    homes = {fault.id: op_of(fault.id) or "several" for fault in faults}
    for op in sorted(set(homes.values())):
        mine = [r for r in results.found if homes[r["fault"]] == op]
        print(f"mutants of {op}: {sum(r['outcome'] == 'named' for r in mine)} of {len(mine)} killed as named")
    bad = [r for r in results.found if r["outcome"] != "named"]
    for result in bad:
        print(f"  {result['fault']} ({result['check']}): {result['outcome']}: {result['message'][:300]}")
    return not bad


def _near(fault_id: str, ops: Iterable[str]) -> tuple[str, ...]:
    """Return the op whose file a fault changes, or all where several share what it changes."""
    from gaugeblock.fixtures.targets.kernels import op_of

    home = op_of(fault_id)
    return (home,) if home in ops else tuple(ops)


def bench(options: argparse.Namespace, deadline: float) -> bool:
    """Run `gaugeblock bench kernels` in a process of its own, then the latency check with and without its fault."""
    command = [sys.executable, "-m", "gaugeblock.conformance.cli.main", "bench", "kernels", "--out", str(options.out)]
    child = subprocess.Popen(command, start_new_session=True)
    finished(child, deadline - time.monotonic())
    return child.returncode == 0 and latency(options, deadline)


def latency(options: argparse.Namespace, deadline: float) -> bool:
    """Hold the reference to its budget on the quickest shapes, and see the check kill a kernel launched twice."""
    from gaugeblock.conformance.check import load_checks
    from gaugeblock.fixtures.faults.record import load_faults

    if LATENCY not in load_checks(("kernels",))[0]:
        return True
    faults = [fault for fault in load_faults().values() if fault.check == LATENCY]
    tasks = [Task(None, LATENCY, tuple(ops_of(LATENCY)), 120.0)]
    tasks += [Task(None, LATENCY, tuple(ops_of(LATENCY)), 60.0, fault.id, fault.message) for fault in faults]
    results = Results(options.out, "latency")
    run_all(tasks, 1, deadline, results.take)
    results.write(True)
    for result in results.found:
        print(f"{LATENCY} {result['fault'] or 'reference'}: {result['outcome']}: {result['message'][:300]}")
    return all(result["outcome"] in ("passed", "named") for result in results.found)


def sanitizer(options: argparse.Namespace, deadline: float) -> bool:
    """Run every op's small calls under compute-sanitizer."""
    tasks = [Task(None, "KER-018", (op,), deadline - time.monotonic()) for op in ops_of("KER-018")]
    results = work(options, "sanitizer", tasks, deadline)
    for result in results.found:
        print(f"compute-sanitizer {result['ops'][0]}: {result['outcome']} {result['message'][:300]}")
    return all(result["outcome"] == "passed" for result in results.found)


def peers(options: argparse.Namespace, deadline: float) -> bool:
    """Run the suite on each peer that can be imported; what it finds there is a finding, not a failure of this run."""
    tasks = [
        task for name in options.peer or PEERS for task in suite_tasks(f"gaugeblock.fixtures.peers.{name}")
        if importable(task.module)
    ]  # fmt: skip
    results = work(options, "peers", tasks, deadline)
    for name in options.peer or PEERS:
        mine = [r for r in results.found if (r["module"] or "").endswith(f".{name}")]
        print(f"{name}: {dict(Counter(r['outcome'] for r in mine)) or 'not installed'}")
        for result in mine:
            if result["outcome"] in ("failed", "error", "broken"):
                print(f"  {result['check']} {result['ops'][0]}: {result['outcome']}: {result['message'][:160]}")
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

if __name__ == "__main__":
    sys.exit(main())
