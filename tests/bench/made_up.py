"""Made-up times: a timer that answers from a table, and shapes small enough for a CPU."""

from dataclasses import replace

from gaugeblock.conformance.bench import ceilings
from gaugeblock.conformance.bench.workloads import workloads

CARD = "NVIDIA H100 80GB HBM3"
SMALL = {
    "add_rmsnorm": {"rows": 4, "hidden": 64},
    "silu_and_mul": {"rows": 4, "hidden": 64},
    "gelu_and_mul": {"rows": 4, "hidden": 64},
    "softmax": {"rows": 4, "columns": 64},
    "ln_linear": {"rows": 4, "hidden": 64, "columns": 64, "activation": "gelu_tanh"},
    "int8_linear": {"rows": 32, "depth": 64, "columns": 64},
    "decode_attention": {"rows": 2, "size": 40, "heads": (4, 2), "head_dim": 64},
    "extend_attention": {"tokens": 8, "prefix": 20, "heads": 4, "kv_heads": 2, "head_dim": 64},
    "sampling": {"rows": 4, "vocab": 300},
    "rope": {"tokens": 8, "q_heads": 4, "k_heads": 2, "dim": 64},
}


class Timer:
    """Answers ``times(function name)`` for every round; what is not named there takes 1000 µs. Calls are made once.

    Matrix products take no time to speak of, so that nothing of these sizes beats them.
    """

    def __init__(self, times, card=CARD):
        self.card = card
        self.times = times
        self.modes = []

    def samples(self, calls, mode):
        calls[0]()
        self.modes.append(mode)
        found = self.times(_name(calls[0]))
        default = 1e-9 if _name(calls[0]).endswith(("matmul", "_int_mm")) else 1000.0
        value = default if found is None else found
        if isinstance(value, Exception):
            raise value
        return [value, value, value]

    def rotation(self, bytes_each):
        return 2

    def peak_bytes(self, call):
        call()
        return 4096


def _name(call):
    function = getattr(call, "func", call)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}"


def small(workload):
    """Return a workload at a size for the CPU, under the same name."""
    return replace(workload, shape=dict(SMALL[workload.op]))


def small_workloads(op=None):
    """Return every workload at a size for the CPU."""
    return [small(workload) for workload in workloads([op] if op else [])]


def shrink_ceilings(monkeypatch):
    """Let the ceilings be measured on a few bytes."""
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1024)
    monkeypatch.setattr(ceilings, "SIDE", 32)
