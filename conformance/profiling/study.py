"""The whole exercise: profile a model, find what to fuse, put the fused ops in, measure again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

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
from gaugeblock.conformance.profiling.workload import Workload, make_workload
from gaugeblock.kernels.contract import Op, load_contracts

TOP = 3
SMALL = (16, 2)
"""Prompt and decode tokens of the comparison that runs our kernels in the interpreter."""
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
    null: float | None = None

    @property
    def wrong(self) -> list[Variant]:
        """Replacements whose outputs differ from the model's."""
        return [variant for variant in self.variants if not variant.agreement.right]


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
    study = read_study(source, path, ceilings)
    study.dtype = str(model.dtype).removeprefix("torch.")
    study.workload = {"prompt_tokens": prompt, "decode_tokens": decode}
    if fuse:
        contracts = load_contracts()
        fusions = [f for f in available(model) if f.op in contracts]
        if not fusions:
            study.notes.append(f"no fusion has a place in {type(model).__name__}: nothing to re-measure")
        else:
            _measure_again(study, model, work, fusions, contracts, before, say)
    return study


def _measure_again(
    study: Study,
    model: Any,
    work: Workload,
    fusions: list[Fusion],
    contracts: dict[str, Op],
    before: measure.Work,
    say: Say,
) -> None:
    device = model.device.type
    groups = [[f] for f in fusions] + ([fusions] if len(fusions) > 1 else [])
    ours = measure.ours(fusions, contracts, device)
    missing = measure.compiler_missing(device)
    timed: list[Implementation] = []
    if ours is not None and ours.timed:
        timed += [measure.ours(group, contracts, device) or ours for group in groups]
    elif not missing:
        timed += [measure.compiled(group, contracts) for group in groups]
        study.notes.append(
            "times are of the same compositions through torch.compile: the fused Triton ops need a GPU, "
            "here they run in the interpreter and only their outputs count"
        )
    else:
        study.notes.append(f"{missing}; the fused Triton ops need a GPU: only the outputs are compared")
    try:
        judge = Judge(model, work)
    except torch.OutOfMemoryError:
        study.notes.append(
            "the weights in the wider dtype do not fit beside the model: nothing to judge the outputs by, so nothing "
            "was replaced"
        )
        return
    study.null = judge.null
    if ours is not None and not ours.timed:
        small = Judge(model, make_workload(model, *SMALL))
        for group in groups[: len(fusions)]:
            say(f"comparing {group[0].op} in the interpreter")
            single = measure.ours(group, contracts, device) or ours
            study.variants.append(measure.measure_variant(model, work, small, single, None, study.trace))
    elif ours is None:
        study.notes.append("our kernels are compiled for this machine's GPU and do not take the CPU's tensors")
    with tempfile.TemporaryDirectory(prefix="gaugeblock-profile-") as scratch:
        for implementation in timed:
            ops = [f.op for f in implementation.calls]
            say(f"measuring {' + '.join(ops)}")
            last = len(ops) == len(fusions)
            trace = study.trace.with_name("trace-fused.json") if last else Path(scratch) / f"{ops[0]}.json"
            study.variants.append(measure.measure_variant(model, work, judge, implementation, before, trace))
