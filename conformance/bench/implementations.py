"""What is timed beside each other: ours or the user's, PyTorch eager, torch.compile, the installed peers, baselines."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from types import ModuleType
from typing import Any, Literal

from gaugeblock.conformance.bench.timing import Call
from gaugeblock.conformance.bench.workloads import Workload
from gaugeblock.fixtures import peers
from gaugeblock.fixtures.peers import LIBRARIES
from gaugeblock.fixtures.targets.kernels import REFERENCE, KernelTarget
from gaugeblock.kernels.contract import Case, Op

Kind = Literal["ours", "eager", "compile", "peer", "baseline"]

PEERS = {("torch.compile" if adapter == "torch_compile" else adapter): adapter for adapter in LIBRARIES}
"""Each peer's adapter in ``gaugeblock.fixtures.peers``, by the name that tables show."""

WARM_UP_THREADS = 16  # each waits for a compiler that runs as a process of its own


@dataclass(frozen=True)
class Implementation:
    """Something that computes an op, or (``judged`` false) the part of it that sets the pace.

    ``call(*inputs, **params)`` returns the outputs. ``prepare``, where there is one, returns the call to time: what a
    library plans once for many calls, and the copies that an in-place function needs, stay outside the clock.
    """

    name: str
    kind: Kind
    call: Callable[..., Any]
    prepare: Callable[..., Call] | None = None
    judged: bool = True

    def timed(self, case: Case) -> Call:
        """Return the call to time on a case's own inputs."""
        if self.prepare is not None:
            return self.prepare(*case.inputs.values(), **case.params)
        return partial(self.call, *case.inputs.values(), **case.params)


@dataclass(frozen=True)
class Peers:
    """The adapters that could be loaded, and why the others could not."""

    modules: dict[str, ModuleType]
    versions: dict[str, str]
    missing: dict[str, str]

    def of(self, op: Op) -> list[Implementation]:
        """Return the peers that offer an op."""
        found = []
        for name, module in self.modules.items():
            function = getattr(module, op.name, None)
            if function is not None:
                kind: Kind = "compile" if name == "torch.compile" else "peer"
                found.append(Implementation(name, kind, function, getattr(function, "timed", None)))
        return found


def load_peers() -> Peers:
    """Import the adapter of every peer that is installed."""
    modules, versions, missing = {}, {}, {}
    for name, adapter in PEERS.items():
        try:
            modules[name] = importlib.import_module(f"{peers.__name__}.{adapter}")
            versions[name] = metadata.version(LIBRARIES[adapter])
        except ModuleNotFoundError as error:
            missing[name] = f"not installed (no module {error.name})"
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
        except Exception as error:  # a library may fail to load in any way: another GPU, another CUDA
            missing[name] = f"{type(error).__name__}: {error}"
    return Peers(modules, versions, missing)


def own(kernels: KernelTarget, op: Op) -> list[Implementation]:
    """Return the target's implementation of an op, the reference's also as a plain call, and PyTorch's composition."""
    function = kernels.functions[op.name]
    eager = Implementation("eager", "eager", op.eager)
    if kernels.name != REFERENCE:
        return [Implementation(kernels.name, "ours", function), eager]
    plain = Implementation("ours", "ours", function)
    if not op.served:
        return [plain, eager]
    return [replace(plain, call=partial(function, **op.served)), replace(plain, name="ours, plain call"), eager]


def warm_up(peers: Peers, ops: Sequence[tuple[Op, Workload]], device: str, say: Callable[[str], None]) -> None:
    """Make the first calls of libraries that compile then, side by side: one after the other they take minutes.

    A failure here is met again, and told, where the op is measured.
    """
    slow = [module for module in peers.modules.values() if getattr(module, "COMPILES", False)]
    jobs = [(getattr(module, op.name), op, work) for module in slow for op, work in ops if hasattr(module, op.name)]
    if not jobs:
        return
    started = time.monotonic()
    with ThreadPoolExecutor(WARM_UP_THREADS) as pool:
        list(pool.map(lambda job: _first_call(job[0], job[1], job[2], device), jobs))
    say(f"compiled what {len(jobs)} library calls need in {time.monotonic() - started:.0f} s")


def _first_call(function: Callable[..., Any], op: Op, workload: Workload, device: str) -> None:
    with suppress(Exception):
        case = op.workload(device, workload.dtype, **workload.shape)
        function(*case.inputs.values(), **case.params)
