"""The whole exercise: profile a model, find what to fuse, put the fused ops in, measure again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gaugeblock.conformance.profiling import measure
from gaugeblock.conformance.profiling.agreement import Judge
from gaugeblock.conformance.profiling.ceilings import Ceilings, measure_ceilings
from gaugeblock.conformance.profiling.costs import name_list_dtypes
from gaugeblock.conformance.profiling.fusions import available
from gaugeblock.conformance.profiling.measure import Implementation, Variant
from gaugeblock.conformance.profiling.operators import Row, operators
from gaugeblock.conformance.profiling.patching import Fusion
from gaugeblock.conformance.profiling.patterns import PATTERNS, Candidate, find, idle_share
from gaugeblock.conformance.profiling.trace import Trace, read_trace
from gaugeblock.conformance.profiling.workload import Workload, make_workload, walls
from gaugeblock.kernels.arguments import Refused
from gaugeblock.kernels.contract import Op, load_contracts
from gaugeblock.kernels.runtime import INTERPRETED

TOP = 3
SMALL = (16, 2)
"""Prompt and decode tokens of the comparison that runs our kernels in the interpreter."""
COMPILED = (
    "times are of the same compositions through torch.compile: the fused Triton ops need a GPU, here they run in the "
    "interpreter and only their outputs count"
)
BY_EVENTS = (
    "the profiler recorded no kernels of the GPU here (docs/profiling.md says why that may be): times are "
    "those between CUDA events around each operator, waits for the host's launches included, and a launch stands for "
    "an operator"
)
Say = Callable[[str], None]


@dataclass
class Study:
    """What was found. ``covered`` names the candidates' ops that this version of the kit has."""

    source: str
    trace: Path
    rows: list[Row]
    phases: dict[str, float]
    idle: dict[str, float]
    candidates: list[Candidate]
    covered: frozenset[str]
    ceilings: Ceilings | None
    device: str
    dtype: str = ""
    workload: dict[str, int] = field(default_factory=dict)
    variants: list[Variant] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    null: float | None = None

    @property
    def wrong(self) -> list[Variant]:
        """Replacements whose outputs differ from the model's."""
        return [variant for variant in self.variants if not variant.agreement.right]

    def measure(self, *arguments: Any) -> bool:
        """Add what ``measure_variant`` returns, or why it failed; return whether the replacement is right."""
        implementation: Implementation = arguments[3]
        try:
            variant = measure.measure_variant(*arguments)
        except Refused as error:
            self.notes.append(f"{implementation.label} does not take this model: {error}")
            return False
        except Exception as error:  # a kernel's compiler and driver raise what they like; the other ops go on
            line = str(error).strip().partition("\n")[0]
            ops = " + ".join(f.op for f in implementation.calls)
            self.failures.append(f"{ops}, {implementation.label}: {type(error).__name__}: {line}")
            return False
        self.variants.append(variant)
        return variant.agreement.right


def read_study(source: str, path: Path, ceilings: Ceilings | None, trace: Trace | None = None) -> Study:
    """Return what a trace says on its own: operators and candidates."""
    trace = trace or read_trace(path)
    name_list_dtypes(trace.calls)
    study = Study(
        source,
        path,
        operators(trace, ceilings),
        trace.phases,
        {name: idle_share(trace, name) for name in trace.phases},
        find(trace, ceilings, PATTERNS),
        frozenset(load_contracts()),
        ceilings,
        trace.device or ("cuda" if trace.on_device else "cpu"),
    )
    if trace.by_events:
        study.notes.append(BY_EVENTS)
    if not any(call.shapes for call in trace.walk()):
        study.notes.append("the trace has no shapes (record_shapes was off): bytes and roofline are unknown")
    return study


def study_model(
    model: Any, source: str, prompt: int, decode: int, out: Path, say: Say = lambda _: None, fuse: bool = True
) -> Study:
    """Profile a loaded model, writing ``trace.json`` and ``trace-fused.json`` to ``out``, and measure the fusions.

    Raises:
        KitError: a workload that does not fit the model.
    """
    device = model.device.type
    work = make_workload(model, prompt, decode)
    say("measuring the ceilings")
    ceilings = measure_ceilings(device, model.dtype)
    say(f"profiling {prompt} prompt and {decode} decode tokens")
    path = out / "trace.json"
    before = measure.observe(model, work, path)
    trace = read_trace(path)
    trace.unrecorded(walls(model, work))
    study = read_study(source, path, ceilings, trace)
    study.dtype = str(model.dtype).removeprefix("torch.")
    study.workload = {"prompt_tokens": prompt, "decode_tokens": decode}
    if fuse:
        _measure_again(study, model, work, load_contracts(), before, say)
    return study


def _measure_again(
    study: Study,
    model: Any,
    work: Workload,
    contracts: dict[str, Op],
    before: measure.Work,
    say: Say,
) -> None:
    try:
        judge = Judge(model, work)
    except RuntimeError as error:  # out of memory is one
        line = str(error).partition("\n")[0]
        study.notes.append(f"nothing was replaced: no copy in the wider dtype to judge the outputs by ({line})")
        return
    study.null = judge.null
    fusions = _fitting(study, [f for f in available(model) if f.op in contracts], judge, contracts)
    if not fusions:
        study.notes.append(f"no op of ours can be put into {type(model).__name__}: nothing was re-measured")
        return
    if measure.ours(fusions, contracts, model.device.type) is None:
        study.notes.append("our kernels are compiled for this machine's GPU and do not take the CPU's tensors")
    elif INTERPRETED:
        small = Judge(model, make_workload(model, *SMALL))
        for fusion in fusions:
            say(f"comparing {fusion.op} in the interpreter")
            single = measure.ours([fusion], contracts, model.device.type)
            assert single is not None
            study.measure(model, work, small, single, None, study.trace)
    right: list[Fusion] = []
    with tempfile.TemporaryDirectory(prefix="gaugeblock-profile-") as scratch:
        for fusion in fusions:
            implementation = _timed(study, [fusion], contracts, model.device.type)
            if implementation is None:
                continue
            say(f"measuring {fusion.op}")
            if study.measure(model, work, judge, implementation, before, Path(scratch) / "trace.json"):
                right.append(fusion)
    if len(right) > 1 and (together := _timed(study, right, contracts, model.device.type)) is not None:
        say("measuring all together")
        study.measure(model, work, judge, together, before, study.trace.with_name("trace-fused.json"))


def _fitting(study: Study, fusions: list[Fusion], judge: Judge, contracts: dict[str, Op]) -> list[Fusion]:
    """Return the fusions whose unfused baseline leaves the outputs as they are: there, the op is what the model does.

    Another model may have parts of the same names that compute something else: an interleaved rotary embedding, norms
    behind the blocks. That is no fault of an op.
    """
    fitting = []
    for fusion in fusions:
        try:
            why = "" if judge.judge({fusion: contracts[fusion.op].eager}).right else "its parts compute something else"
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if why:
            study.notes.append(f"{fusion.op} does not fit this model and is left out ({why})")
        else:
            fitting.append(fusion)
    return fitting


def _timed(study: Study, group: list[Fusion], contracts: dict[str, Op], device: str) -> Implementation | None:
    """Return what is timed on a device: our kernels where they are compiled, else a compiled composition or nothing."""
    ours = measure.ours(group, contracts, device)
    if ours is not None and ours.timed:
        return ours
    if not all(fusion.composed for fusion in group):
        return None
    missing = measure.compiler_missing(device)
    note = f"{missing}; the fused Triton ops need a GPU: only the outputs were compared" if missing else COMPILED
    if note not in study.notes:
        study.notes.append(note)
    return None if missing else measure.compiled(group, contracts)
