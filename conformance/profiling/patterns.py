"""Find in a trace the compositions that one fused op could replace.

The sequence of operators is written as one character each and searched with regular expressions: what a composition
looks like stays readable, and a new pattern is one line. Views launch nothing and are not part of the sequence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

from gaugeblock.conformance.profiling.ceilings import Ceilings
from gaugeblock.conformance.profiling.costs import Cost, base_name, credited, itemsize, shape, total
from gaugeblock.conformance.profiling.trace import OpCall, Trace

LETTERS: dict[str, str] = {
    **dict.fromkeys(["linear", "mm", "addmm", "bmm", "baddbmm", "matmul"], "L"),
    **dict.fromkeys(["add", "sub", "rsub"], "A"),
    **dict.fromkeys(["mul", "div"], "X"),
    **dict.fromkeys(["pow", "square"], "P"),
    **dict.fromkeys(["softmax", "_softmax"], "T"),
    **dict.fromkeys(["layer_norm", "native_layer_norm"], "H"),
    **dict.fromkeys(["rms_norm", "_fused_rms_norm"], "Z"),
    **dict.fromkeys(["sort", "topk"], "O"),
    **dict.fromkeys(["masked_fill", "where"], "F"),
    "mean": "M",
    "rsqrt": "R",
    "neg": "N",
    "cat": "K",
    "silu": "S",
    "gelu": "G",
    "tanh": "W",
    "scaled_dot_product_attention": "Q",
    "cumsum": "U",
    "multinomial": "V",
    "_int_mm": "I",
}
COPIES = frozenset({"to", "_to_copy", "type_as", "float", "half", "bfloat16"})  # C, when they copy
LAYOUTS = frozenset({"contiguous", "clone", "reshape", "repeat_interleave"})  # Y, when they copy
OTHER = "."
ATTENTION = "attention"  # stands for two ops, told apart by the number of queries


@dataclass(frozen=True)
class Pattern:
    """``regex`` over the letters; ``bystanders`` are letters within it that stay as they are.

    ``fused`` returns the cost of the fused op in place of the matched calls, from their shapes.
    """

    op: str
    title: str
    regex: str
    fused: Callable[[list[OpCall], str], Cost]
    bystanders: str = ""


@dataclass
class Candidate:
    """All places where one pattern was found.

    ``self_us`` is time on the device (on a CPU: of its operators); ``waiting_us`` the host's time for all launches but
    one a place, as far as the device waited for it. ``saving_us`` is what would be gained if the fused op ran at the
    measured ceiling: an upper limit, not a promise.
    """

    op: str
    title: str
    operators: str
    places: int = 0
    launches: int = 0
    self_us: float = 0.0
    bytes: int = 0
    fused_bytes: int = 0
    fused_us: float = 0.0
    waiting_us: float = 0.0
    phases: dict[str, int] = field(default_factory=dict)

    @property
    def saving_us(self) -> float:
        """Time that the composition takes above the floor of the fused op."""
        return max(self.self_us - self.fused_us, 0.0) + self.waiting_us

    def describe(self) -> dict[str, object]:
        """Return the candidate as JSON."""
        return {
            "op": self.op,
            "title": self.title,
            "operators": self.operators,
            "places": self.places,
            "phases": self.phases,
            "launches": self.launches,
            "self_us": round(self.self_us, 3),
            "bytes": self.bytes,
            "fused_bytes": self.fused_bytes,
            "fused_floor_us": round(self.fused_us, 3),
            "waiting_us": round(self.waiting_us, 3),
            "saving_us": round(self.saving_us, 3),
        }


def letters(calls: Iterable[OpCall]) -> tuple[str, list[OpCall]]:
    """Return the sequence as a string, and the call behind each character; ``|`` keeps phases and threads apart."""
    text: list[str] = []
    found: list[OpCall] = []
    last: object = None
    for root in calls:
        if last is not None and (root.thread, root.phase) != last:
            text.append("|")
            found.append(root)
        last = (root.thread, root.phase)
        for letter, call in _spell(root):
            text.append(letter)
            found.append(call)
    return "".join(text), found


def _spell(call: OpCall) -> Iterator[tuple[str, OpCall]]:
    name = base_name(call.name)
    if name in LETTERS:
        yield LETTERS[name], call
    elif name in COPIES or name in LAYOUTS:
        if any(base_name(below.name) == "copy" for below in call.walk()):
            yield ("C" if name in COPIES else "Y"), call
    elif call.kernels or next(credited(call), None) is not None:
        inner = [found for child in call.children for found in _spell(child)]
        yield from inner if any(letter != OTHER for letter, _ in inner) else [(OTHER, call)]


def find(trace: Trace, ceilings: Ceilings | None, patterns: Iterable[Pattern]) -> list[Candidate]:
    """Return the candidates, the largest possible saving first. A call belongs to the first pattern that takes it."""
    text, calls = letters(sorted(trace.calls, key=lambda call: (str(call.thread), call.begin)))
    waits = {name: idle_share(trace, name) / trace.slowed.get(name, 1.0) for name in {c.phase for c in trace.calls}}
    candidates: dict[tuple[str, str], Candidate] = {}
    for pattern in patterns:
        spans = [match.span() for match in re.finditer(pattern.regex, text) if match.group()]
        for begin, end in spans:
            taken = [(text[i], calls[i]) for i in range(begin, end) if text[i] not in pattern.bystanders]
            op = pattern.op if pattern.op != ATTENTION else _attention_op(taken)
            candidate = candidates.setdefault((op, pattern.title), Candidate(op, pattern.title, ""))
            _add(candidate, pattern, taken, ceilings, waits if trace.on_device else None)
        blank = list(text)
        for begin, end in spans:
            kept = [c if c in pattern.bystanders else "#" for c in text[begin:end]]
            blank[begin:end] = kept
        text = "".join(blank)
    return sorted(candidates.values(), key=lambda candidate: -candidate.saving_us)


def idle_share(trace: Trace, phase: str) -> float:
    """Return the share of a phase that the device waited for the host; 0 on a CPU or when the phase has no length."""
    wall = trace.phases.get(phase)
    if not wall or not trace.on_device:
        return 0.0
    busy = sum(call.device_us for call in trace.walk() if call.phase == phase)
    busy += sum(kernel.us for kernel in trace.loose if kernel.phase == phase)
    return max(1.0 - busy / wall, 0.0)


def _add(
    candidate: Candidate,
    pattern: Pattern,
    taken: list[tuple[str, OpCall]],
    ceilings: Ceilings | None,
    waits: dict[str, float] | None,
) -> None:
    """Count one place. ``waits``: the share of the host's time that the device waits for, by phase; None on a CPU."""
    calls = [call for _, call in taken]
    every = [below for call in calls for below in call.walk()]
    costs = [found for call in calls if (found := total(call)) is not None]
    try:
        fused = pattern.fused(calls, "".join(letter for letter, _ in taken))
    except (IndexError, ValueError, KeyError):  # shapes were not recorded: the time alone is known
        fused = Cost(0)
    launches = len(costs) if waits is None else sum(len(c.kernels) for c in every)
    host = sum(c.host_us for c in every)
    candidate.places += 1
    candidate.operators = candidate.operators or " ".join(base_name(call.name) for call in calls)
    candidate.launches += launches
    candidate.self_us += host if waits is None else sum(c.device_us for c in every)
    candidate.bytes += sum(found.bytes for found in costs)
    candidate.fused_bytes += fused.bytes
    candidate.fused_us += ceilings.floor_us(fused.bytes, fused.flops) if ceilings is not None else 0.0
    candidate.phases[calls[0].phase] = candidate.phases.get(calls[0].phase, 0) + 1
    if waits is not None and launches:
        candidate.waiting_us += host * (1 - 1 / launches) * waits.get(calls[0].phase, 0.0)


def _attention_op(taken: list[tuple[str, OpCall]]) -> str:
    """One query a request is decoding; more extend a prefix."""
    query = next(call for letter, call in taken if letter in "QL")
    try:
        return "decode_attention" if shape(query, 0)[-2] == 1 else "extend_attention"
    except (IndexError, ValueError):
        return "decode_attention" if taken[0][1].phase == "decode" else "extend_attention"


def _elements(call: OpCall, index: int = 0) -> int:
    return prod(shape(call, index))


def _norm(calls: list[OpCall], text: str) -> Cost:
    """Residual add and norm read two and write two rows; the norm alone one and one; the weight once."""
    last = calls[-1]
    sizes = [(_elements(last, i), shape(last, i), itemsize(last, i)) for i in (0, 1) if i < len(last.dtypes)]
    elements, dims, size = max(sizes, key=lambda found: found[0])
    return Cost(((4 if text.startswith("A") else 2) * elements + dims[-1]) * size)


def _gate(calls: list[OpCall], text: str) -> Cost:
    return Cost(3 * _elements(calls[0]) * itemsize(calls[0]))


def _rope(calls: list[OpCall], text: str) -> Cost:
    """Each of q and k read and written once, cosines and sines once for both."""
    moved = 0
    for match in re.finditer(_TURN, text):
        group = calls[match.start() : match.end()]
        last = group[-1]  # whose output is q, or k
        elements = _elements(last) if "N" in match.group() else sum(prod(dims) for dims in last.shapes[0])
        moved += 2 * elements * itemsize(group[0])
    return Cost(moved + 2 * _elements(calls[0], 1) * itemsize(calls[0], 1))


def _row(calls: list[OpCall], text: str) -> Cost:
    return Cost(2 * _elements(calls[0]) * itemsize(calls[0]))


def _product(calls: list[OpCall], text: str) -> Cost:
    product = next(total(call) for call, letter in zip(calls, text, strict=True) if letter in "LI")
    return product or Cost(0)


def _sdpa(calls: list[OpCall], text: str) -> Cost:
    """The cost of the attention itself: a paged cache is read where it lies and appended to in place."""
    if "Q" in text:
        return total(calls[text.index("Q")]) or Cost(0)
    first, last = (total(calls[text.index("L")]), total(calls[text.rindex("L")]))
    scores = _elements(calls[text.index("T")]) * itemsize(calls[text.index("T")])
    both = [found for found in (first, last) if found is not None]
    return Cost(max(sum(c.bytes for c in both) - 2 * scores, 0), sum(c.flops for c in both))


_TURN = "XNKXA|XXAXXAK{1,2}"  # x·cos + rotate_half(x)·sin, as transformers writes it, and half by half, as SGLang does
PATTERNS: tuple[Pattern, ...] = (
    Pattern("rope", "rotary embedding of q and k", rf"(?:{_TURN}){{1,2}}", _rope),
    Pattern("add_rmsnorm", "residual add and RMSNorm", r"A(?:C?PMARXC?X|Z)", _norm),
    Pattern("add_rmsnorm", "RMSNorm without a residual", r"C?PMARXC?X|Z", _norm),
    Pattern("ln_linear", "LayerNorm, linear and activation", r"HL(?:G|S|XPXAXWAX)", _product),
    Pattern("silu_and_mul", "SiLU of the gate times up", r"SL?X", _gate, "L"),
    Pattern("gelu_and_mul", "GELU of the gate times up", r"GL?X", _gate, "L"),
    Pattern(ATTENTION, "attention and the growth of its cache", r"K{0,2}Y{0,2}Q|K{0,2}Y{0,2}LX?[AF]?C?TC?Y?L", _sdpa),
    Pattern("sampling", "sampling from the last logits", r"X?[OT][OTUFXKA.]{0,20}V", _row),
    Pattern("int8_linear", "integer product and its scales", r"IC?X{1,2}C?A?", _product),
    Pattern("softmax", "softmax", r"T", _row),
)
