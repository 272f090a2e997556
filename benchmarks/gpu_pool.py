"""Checks and mutants in many processes on one GPU; a worker that hangs or whose CUDA context breaks is replaced."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

COMPILE = "compile"
START_SECONDS = 120.0  # importing torch and triton in many processes at once


@dataclass(frozen=True)
class Task:
    """One check on some ops of one module, with a fault planted or none; ``step`` asked for it.

    ``message``: what the fault's failure must contain.

    With a fault, the first op whose failure holds the message ends the task. The check ``COMPILE`` is none: it makes
    calls that others will make, so that they find their kernels in the caches of Triton and inductor; ``piece`` says
    which: a part of an op's small calls, or in step ``bench`` one of the timed shapes.
    """

    step: str
    module: str | None
    check: str
    ops: tuple[str, ...]
    seconds: float
    fault: str | None = None
    message: str = ""
    piece: int = 0


def run_all(tasks: Sequence[Task], workers: int, deadline: float, done: Callable[[dict[str, Any]], None]) -> None:
    """Run tasks in ``workers`` processes until all are done or ``time.monotonic()`` passes ``deadline``.

    ``done`` hears of each result in one thread: the task, ``outcome``, ``message``, ``seconds``.
    """
    todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    results: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    left = count = min(workers, len(tasks))
    stop = threading.Event()
    for _ in range(count):
        threading.Thread(target=_drive, args=(todo, results, deadline, stop)).start()
    try:
        while left:
            result = results.get()
            left -= result is None
            if result is not None:
                done(result)
    finally:
        stop.set()


def _drive(
    todo: queue.SimpleQueue[Task],
    results: queue.SimpleQueue[dict[str, Any] | None],
    deadline: float,
    stop: threading.Event,
) -> None:
    worker: Worker | None = None
    try:
        while True:
            try:
                task = todo.get_nowait()
            except queue.Empty:
                return
            if stop.is_set() or time.monotonic() > deadline:
                results.put(asdict(task) | {"outcome": "not run", "message": "the step's time was up", "took": 0.0})
                continue
            worker = worker or Worker()
            begin = time.monotonic()
            answer = worker.ask(task, min(task.seconds, max(deadline - begin, 1.0)))
            alive = answer.pop("alive", False)
            results.put(asdict(task) | answer | {"took": round(time.monotonic() - begin, 2)})
            if not alive:
                worker.end()
                worker = None
    finally:
        if worker is not None:
            worker.end()
        results.put(None)


class Worker:
    """A process that answers tasks."""

    def __init__(self) -> None:
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        self.process.start()
        theirs.close()
        try:
            self.ready = self.pipe.poll(START_SECONDS) and self.pipe.recv() == "ready"
        except EOFError:  # it died on the way
            return

    def ask(self, task: Task, seconds: float) -> dict[str, Any]:
        """Return the answer, ``alive`` in it when the process can take more; ``broken`` when it died or hung."""
        if not self.ready:
            return {"outcome": "broken", "message": "the worker did not start"}
        try:
            self.pipe.send(task)
            if self.pipe.poll(seconds):
                answer: dict[str, Any] = self.pipe.recv()
                return answer
        except (EOFError, OSError):
            return {"outcome": "broken", "message": "the process died"}
        return {"outcome": "broken", "message": f"no answer within {seconds:.0f} s"}

    def end(self) -> None:
        """End the process and what it has started: compute-sanitizer, a child behind guard pages."""
        try:
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet, or is gone
            self.process.kill()
        self.process.join(10)


def serve(pipe: Connection) -> None:
    """Answer tasks until the other side is gone; this runs in the worker."""
    os.setsid()
    from on_gpu import make_importable

    make_importable()
    import torch

    import gaugeblock.kernels.runtime  # noqa: F401 # the slow imports come before the first task's clock

    torch.set_num_threads(1)  # the workers share the cores: with more, the oracles' threads wait for one another
    pipe.send("ready")
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer = perform(task)
        except Exception as error:  # a fault that can't be planted any more
            answer = {"outcome": "error", "message": f"{type(error).__name__}: {error}"[:600]}
        alive = context_is_alive()
        if not alive and answer["outcome"] not in ("failed", "named"):
            answer = {"outcome": "broken", "message": f"the CUDA context broke: {answer['message']}"}
        pipe.send(answer | {"alive": alive})
        if not alive:
            return


def perform(task: Task) -> dict[str, Any]:
    """Run a task in this process: the worst outcome over its ops, or ``named`` for a fault that the check kills."""
    from gaugeblock.fixtures.faults.record import planted

    if task.check == COMPILE:
        return compile_timed(task) if task.step == "bench" else compile_piece(task)
    with planted(task.fault):
        found = []
        for op_name in task.ops:
            outcome, message = one(task, op_name)
            found.append((outcome, f"{op_name}: {message}" if message else ""))
            if task.fault and outcome == "failed" and task.message in message:
                return {"outcome": "named", "message": message[:600]}
    order = ("error", "failed", "inconclusive", "skipped", "passed", "unsupported")
    outcome, message = min(found, key=lambda pair: order.index(pair[0]))
    if task.fault:
        return {"outcome": "other" if outcome in ("failed", "error") else "survived", "message": message[:600]}
    return {"outcome": outcome, "message": message[:1200]}


def pieces(op: Any) -> int:
    """Return how many pieces compiling an op is cut into: a dtype and variant each, and a configuration each."""
    return len(op.dtypes) * len(op.variants) + len(op.configs)


def compile_piece(task: Task) -> dict[str, Any]:
    """Make the calls of one piece; a failure here is met again, and told, by the check that makes the call."""
    from gaugeblock.kernels.contract import load_contracts

    op = load_contracts()[task.ops[0]]
    forms = [(dtype, variant) for dtype in op.dtypes for variant in op.variants]
    if task.piece < len(forms):
        dtype, variant = forms[task.piece]
        sizes = (op.sizes.small, op.sizes.usual, op.sizes.odd, op.sizes.long)
        calls = [(op.make(rows, size, dtype, 0, "normal", **variant), {}) for size in sizes for rows in (5, 1)]
    else:
        config = op.configs[task.piece - len(forms)]
        calls = [(case, {"config": config}) for case in op.cases(5, op.sizes.usual, 17) if op.fits(case, config)]
    failed = ""
    for case, more in calls:
        try:
            op.kernel(*case.to("cuda" if on_a_gpu() else "cpu").inputs.values(), **case.params, **more)
        except Exception as error:
            failed = f"{case.label} {more}: {type(error).__name__}: {error}"
    return {"outcome": "failed" if failed else "passed", "message": failed[:400]}


def compile_timed(task: Task) -> dict[str, Any]:
    """Call ours, torch.compile's and the baselines' at one timed shape."""
    from gaugeblock.conformance.bench.baselines import baselines
    from gaugeblock.conformance.bench.implementations import load_peers, own
    from gaugeblock.conformance.bench.workloads import WORKLOADS
    from gaugeblock.fixtures.targets.kernels import load_kernels
    from gaugeblock.kernels.contract import load_contracts

    op, workload = load_contracts()[task.ops[0]], WORKLOADS[task.piece]
    case = op.workload("cuda", workload.dtype, **workload.shape)
    compiled = [one for one in load_peers().of(op) if one.kind == "compile"]
    failed = []
    for implementation in (*own(load_kernels(None), op), *compiled, *baselines(op)):
        try:
            implementation.timed(case)()
        except Exception as error:
            failed.append(f"{implementation.name}: {type(error).__name__}: {error}"[:200])
    del case
    torch_memory_back()
    return {"outcome": "failed" if failed else "passed", "message": "; ".join(failed)}


def torch_memory_back() -> None:
    """Return what the allocator keeps, so that the other processes find room."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def on_a_gpu() -> bool:
    """Whether kernels run compiled."""
    from gaugeblock.kernels.runtime import DEVICE

    return DEVICE == "cuda"


def one(task: Task, op_name: str) -> tuple[str, str]:
    """Call a check's function on one op."""
    from gaugeblock.conformance.check import load_checks
    from gaugeblock.conformance.outcome import NotRun
    from gaugeblock.fixtures.targets.kernels import load_kernels
    from gaugeblock.kernels.arguments import Unclaimed
    from gaugeblock.kernels.contract import load_contracts

    record = load_checks(("kernels",))[0][task.check]
    function = getattr(importlib.import_module(record.module), f"test_{record.id.lower().replace('-', '_')}")
    kernels = load_kernels(task.module)
    if op_name not in kernels.functions:
        return "unsupported", f"{kernels.name} has no {op_name}"
    attaches = "record_property" in inspect.signature(function).parameters
    evidence: dict[str, Any] = {"record_property": lambda name, value: None} if attaches else {}
    try:
        function(kernels=kernels, op=load_contracts()[op_name], **evidence)
    except NotRun as reason:
        return str(reason.outcome), str(reason)
    except Unclaimed as reason:
        return "unsupported", str(reason)
    except AssertionError as error:
        return "failed", str(error)
    except Exception as error:  # the kit's own trouble, told and not hidden
        while isinstance(error, BaseExceptionGroup):  # of Hypothesis, which says only that there are several
            error = error.exceptions[0]
        return "error", f"{type(error).__name__}: {error}"
    return "passed", ""


def context_is_alive() -> bool:
    """Whether this process can still use the GPU: an illegal access ends a context for good."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def ops_of(check: str) -> Iterable[str]:
    """Return the ops that a check is about."""
    from gaugeblock.conformance.check import load_checks
    from gaugeblock.conformance.kernel_fixtures import concerns
    from gaugeblock.kernels.contract import load_contracts

    module = importlib.import_module(load_checks(("kernels",))[0][check].module)
    return [name for name, op in load_contracts().items() if concerns(module, op)]
