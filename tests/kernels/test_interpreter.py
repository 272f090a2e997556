"""The shortcuts through Triton's interpreter change no bit and leave Triton as it was."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from gaugeblock.conformance.kernels.judging import require_same_bits
from gaugeblock.fixtures.targets.kernels import load_kernels
from gaugeblock.kernels import _interpreter, runtime
from gaugeblock.kernels._interpreter import STAND_INS, _applicable, _float_conversions, lean
from gaugeblock.kernels.contract import load_contracts
from gaugeblock.kernels.runtime import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="kernels are compiled here")


def _originals():
    return [getattr(owner, stand_in.name) for owner, stand_in in _applicable()]


@pytest.mark.parametrize("op", load_contracts().values(), ids=lambda op: op.name)
def test_every_op_computes_the_same_bits_without_them(op, monkeypatch):
    kernels = load_kernels(None)
    cases = [*op.some_cases(3, op.sizes.odd, 30), *op.some_cases(2, op.sizes.small, 31, op.kinds[-1])]
    quick = [kernels.run(op, case) for case in cases]
    monkeypatch.setattr(runtime, "lean", nullcontext)
    for case, outputs in zip(cases, quick, strict=True):
        for name, expected in kernels.run(op, case).items():
            require_same_bits(outputs[name], expected, f"{case.label}: {name}")


def test_this_triton_has_the_place_of_each():
    assert [stand_in for _, stand_in in _applicable()] == list(STAND_INS)


def test_triton_is_as_before_also_after_an_error():
    before = _originals()
    with pytest.raises(ZeroDivisionError), lean():
        _launch_that_fails(before)
    assert all(now is original for now, original in zip(_originals(), before, strict=True))


def _launch_that_fails(before):
    assert all(now is not original for now, original in zip(_originals(), before, strict=True))
    assert 1 / 0


@pytest.mark.parametrize("change", [{"name": "no_such_name"}, {"parameters": ("self",)}, {"owner": "triton:NoClass"}])
def test_a_triton_of_another_form_keeps_its_own(change, monkeypatch):
    monkeypatch.setattr(_interpreter, "STAND_INS", (replace(STAND_INS[0], **change),))
    assert _applicable.__wrapped__() == ()


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1.5])
def test_only_plus_zero_is_converted_without_a_look(value):
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    language = interpreter.tl
    data = np.full((2, 3), value, np.float32)
    arguments = (data, language.float32, language.bfloat16, None)
    original = interpreter._convert_float
    found = _float_conversions(original)(*arguments)
    assert found.dtype == original(*arguments).dtype
    assert (found == original(*arguments)).all()
    assert found.shape == data.shape


def test_a_launch_inside_a_launch_of_another_type_of_tile():
    op = load_contracts()["silu_and_mul"]
    kernels = load_kernels(None)
    case = op.make(2, 8, torch.float16, 1)
    with lean():
        nested = kernels.run(op, case)
    require_same_bits(nested["out"], kernels.run(op, case)["out"], "nested")
