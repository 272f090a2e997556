"""Sampling: its oracle by brute force in fractions, its edges, what it refuses, and what its own checks can tell."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from gaugeblock.conformance.kernels import test_ker_019_kept_set as ker_019
from gaugeblock.conformance.kernels import test_ker_020_distribution as ker_020
from gaugeblock.conformance.kernels import test_ker_021_ties_and_boundaries as ker_021
from gaugeblock.conformance.kernels.sampled import MISSED, Row, chi_squared, draws_needed
from gaugeblock.fixtures.targets.kernels import KernelTarget
from gaugeblock.kernels import sampling as op
from gaugeblock.kernels.arguments import Refused, Unclaimed
from gaugeblock.kernels.runtime import DEVICE, INTERPRETED


def brute_force(probs, top_k, top_p, min_p, uniform):
    """Return the token of one row by the definition, in exact arithmetic."""
    exact = [Fraction(p) if 0 < p < math.inf else Fraction(0) for p in probs]
    largest = max(exact)
    least = Fraction(torch.tensor(float(largest)).mul(torch.tensor(min_p)).item())  # one rounding to fp32
    kept = []
    for p in exact:
        above = [q for q in exact if q > p]
        passes = (not 0 < top_k < len(exact) or len(above) < top_k) and (top_p >= 1 or sum(above) < Fraction(top_p))
        kept.append(p if p > 0 and ((passes and p >= least) or p == largest) else Fraction(0))
    mass = Fraction(0)
    for token, p in enumerate(kept):
        mass += p
        if mass > Fraction(uniform) * sum(kept):
            return token
    return 0


def run(case, **keywords):
    return op.sampling(*(t.to(DEVICE) for t in case.inputs.values()), **keywords).cpu()


def one(probs, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0):
    return run(Row("", torch.tensor(probs), top_k, top_p, min_p).case(torch.tensor([uniform]))).item()


@pytest.mark.parametrize("kind", op.KINDS)
@pytest.mark.parametrize("size", [1, 2, 37])
def test_oracle_eager_and_kernel_are_the_definition_in_fractions(kind, size):
    case = op.make(16, size, torch.float32, 4, kind)
    right = [brute_force(*row) for row in zip(*(t.tolist() for t in case.inputs.values()), strict=True)]
    assert op.oracle(case)["token"].tolist() == right
    assert op.eager(*case.inputs.values()).tolist() == right
    assert run(case).tolist() == right


@pytest.mark.parametrize("kind", op.KINDS)
@pytest.mark.parametrize("size", [63, 1000, 4097])
def test_eager_and_every_configuration_agree_with_the_oracle(kind, size):
    case = op.make(5, size, torch.float32, 5, kind)
    right = op.oracle(case)["token"].tolist()
    assert op.eager(*case.inputs.values()).tolist() == right
    for config in op.CONFIGS:
        assert run(case, config=config).tolist() == right, config


def test_sums_of_the_cases_are_exact_in_fp32_in_any_order():
    for size in (63, 4097, 2**13):
        probs = op.make(3, size, torch.float32, 6).inputs["probs"]
        assert (probs.sum(1) == 1).all()
        assert (probs.flip(1).cumsum(1)[:, -1] == 1).all()
        assert probs.cumsum(1).double().equal(probs.double().cumsum(1))


def test_a_large_vocabulary():
    case = op.make(3, 128256, torch.float32, 7)
    assert run(case).tolist() == op.oracle(case)["token"].tolist()


def test_real_probabilities_give_the_token_of_float64_but_for_rounding():
    generator = torch.Generator().manual_seed(8)
    probs = (2 * torch.randn(32, 500, generator=generator)).softmax(1)
    row = Row("", probs[0], top_k=40, top_p=0.9, slack=op.fuzz(500))
    case = row.case(torch.rand(32, generator=generator))
    case.inputs["probs"] = probs
    tokens = run(case)
    filters = [case.inputs[name] for name in ("top_k", "top_p", "min_p")]
    assert op.kept_set(probs.double(), *filters, slack=op.fuzz(500)).gather(1, tokens[:, None]).all()
    mass = torch.where(op.kept_set(probs.double(), *filters), probs.double(), 0.0).cumsum(1)
    target = case.inputs["uniform"].double() * mass[:, -1]
    upto = mass.gather(1, tokens[:, None])[:, 0]
    before = upto - probs.double().gather(1, tokens[:, None])[:, 0]
    assert (before - 2e-6 <= target).all()
    assert (target <= upto + 2e-6).all()


def test_scale_does_not_matter_for_a_row_that_does_not_sum_to_one():
    for scale in (1.0, 2.0**-60, 2.0**60):
        assert one([scale, 2 * scale, scale], top_k=2, uniform=0.3) == 1
        assert one([scale, 2 * scale, scale], min_p=0.5, uniform=0.2) == 0


def test_uniform_at_and_outside_the_ends_gives_the_first_and_the_last_kept_token():
    probs = [0.0, 0.25, 0.0, 0.5, 0.25, 0.0]
    assert [one(probs, uniform=u) for u in (-1.0, 0.0, 1 - 2.0**-24, 1.0, 7.0)] == [1, 1, 4, 4, 4]
    assert [one(probs, uniform=u) for u in (0.25 - 2.0**-26, 0.25, 0.75 - 2.0**-24, 0.75)] == [1, 3, 3, 4]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_row_without_probabilities_yields_0_and_disturbs_no_other(bad):
    case = op.make(4, 100, torch.float32, 9)
    right = run(case)
    case.inputs["probs"][2] = bad
    right[2] = 0
    assert run(case).equal(right)


def test_single_bad_values_count_as_zero():
    assert one([math.nan, 0.5, -3.0, 0.5, math.inf], uniform=0.5) == 3
    assert one([math.nan, 0.5, -3.0, 0.25, math.inf], top_k=1, uniform=0.9) == 1


def test_nan_filters_keep_the_most_probable_token_in_range():
    for filters in ({"top_p": math.nan}, {"min_p": math.nan}, {"uniform": math.nan}):
        assert one([0.25, 0.75], **filters) in (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": torch.zeros(5)}, r"probs has shape \(5,\), expected \[rows, vocab\]"),
        ({"probs": torch.zeros(2, 0)}, "the last dimension of probs is 0"),
        ({"probs": torch.zeros(1, 1).expand(2, op.MAX_VOCAB + 1)}, "is 524289, supported: 1…524288"),
        ({"probs": torch.zeros(2, 5, dtype=torch.bfloat16)}, "probs is torch.bfloat16; supported: torch.float32"),
        ({"top_k": torch.zeros(2, dtype=torch.int64)}, "top_k is torch.int64; supported: torch.int32"),
        ({"top_p": torch.ones(2).double()}, "top_p is torch.float64 but probs is torch.float32"),
        ({"min_p": torch.zeros(1)}, r"min_p has shape \(1,\), expected \(2,\)"),
        ({"out": torch.zeros(2, dtype=torch.int32)}, "out is torch.int32; supported: torch.int64"),
        ({"out": torch.zeros(3, dtype=torch.int64)}, r"out has shape \(3,\), expected \(2,\)"),
    ],
)
def test_refusals_name_the_argument(change, message):
    case = op.make(2, 5, torch.float32)
    arguments = {name: t.to(DEVICE) for name, t in {**case.inputs, **change}.items()}
    out = arguments.pop("out", None)
    with pytest.raises(Refused, match=message):
        op.sampling(*arguments.values(), out=out)


def test_draws_needed_miss_no_token():
    row = Row("", torch.tensor([0.5, 0.25, 0.25]))
    draws = draws_needed([row])
    assert 3 * 0.75**draws < MISSED <= 3 * 0.75 ** (draws - 2)
    assert draws_needed([Row("", torch.tensor([0.0, 1.0]))]) == 1


def test_chi_squared_is_the_textbook_statistic():
    row = Row("", torch.tensor([0.5, 0.25, 0.25]))
    found = chi_squared(row, torch.tensor([0] * 60 + [1] * 25 + [2] * 15), 100)
    assert found.freedom == 2
    assert found.statistic == pytest.approx(100 / 50 + 0 + 100 / 25)
    assert found.chance == pytest.approx(math.exp(-found.statistic / 2))  # the distribution with 2 degrees of freedom
    assert found.worst_ids == "2…2"


def own_numbers(kept_of):
    """Return a target that draws with random numbers of its own from the kept set that ``kept_of`` gives."""
    generator = torch.Generator().manual_seed(10)

    def sampling(probs, top_k, top_p, min_p, uniform):
        kept = kept_of(probs.cpu(), top_k.cpu(), top_p.cpu(), min_p.cpu())
        weights = torch.where(kept, probs.cpu(), 0.0)
        return torch.multinomial(weights, 1, generator=generator)[:, 0].to(DEVICE)

    sampling.own_randomness = True
    return KernelTarget("own", {"sampling": sampling}, DEVICE)


def judge(target):
    ker_019.test_ker_019(kernels=target, op=op.CONTRACT)
    ker_021.test_ker_021(kernels=target, op=op.CONTRACT)
    ker_020.test_ker_020(kernels=target, op=op.CONTRACT, record_property=lambda name, value: None)


def test_a_right_sampler_with_its_own_random_numbers_passes():
    judge(own_numbers(op.kept_set))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p, k, t, m: op.kept_set(p, k, (1.3 * t).clamp(max=1), m), "outside the kept set"),
        (lambda p, k, t, m: op.kept_set(p, (k / 2).ceil().int(), t, m), "never drew"),
        (lambda p, k, t, m: op.kept_set(p, k, t, torch.zeros_like(m)), "min-p"),
        (lambda p, k, t, m: op.kept_set(p, k + (k > 0).int(), t, m), "outside the kept set"),
    ],
)
def test_a_wrong_sampler_with_its_own_random_numbers_fails(wrong, message):
    with pytest.raises(AssertionError, match=message):
        judge(own_numbers(wrong))


def test_a_sampler_without_min_p_is_judged_by_its_other_filters():
    def sampling(probs, top_k, top_p, min_p, uniform):
        if (min_p > 0).any():
            raise Unclaimed("no min-p")
        return op.sampling(probs, top_k + (top_k == 5).int(), top_p, min_p, uniform)

    target = KernelTarget("without min-p", {"sampling": sampling}, DEVICE)
    ker_021.test_ker_021(kernels=target, op=op.CONTRACT)
    with pytest.raises(AssertionError, match=r"top-k \(top_k 5.*outside the kept set"):
        ker_019.test_ker_019(kernels=target, op=op.CONTRACT)


def test_tokens_of_equal_probability_in_the_wrong_proportion_fail():
    def skewed(probs, top_k, top_p, min_p, uniform):
        return op.sampling(probs, top_k, top_p, min_p, uniform**1.5)

    target = KernelTarget("skewed", {"sampling": skewed}, DEVICE)
    with pytest.raises(AssertionError, match="distribution is wrong"):
        ker_020.test_ker_020(kernels=target, op=op.CONTRACT, record_property=lambda name, value: None)


SCRIPT = """
import re, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import sampling as op
FP32 = ("probs_ptr", "top_p_ptr", "min_p_ptr", "uniform_ptr")
TYPES = {"out_ptr": "*i64", **dict.fromkeys(FP32, "*fp32")}
def compile(kernel, constants, warps):
    names = kernel.arg_names
    kinds = {n: "constexpr" if n in constants else TYPES.get(n, "*i32" if n.endswith("_ptr") else "i32") for n in names}
    aligned = [i for i, n in enumerate(names) if n.endswith("_ptr") or n in ("vocab", "stride", "scratch", "groups")]
    source = ASTSource(kernel, kinds, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
for config in op.CONFIGS:
    tiles, more, _ = op.tiles(128256, config)
    compiled = compile(op._maxima_kernel, tiles, config.warps_maxima)
    print(sorted(set(re.findall(r"(?:ld|st)\\.global\\.[\\w.]+", compiled.asm["ptx"]))))
    assert ".local" not in compile(op._draw_kernel, {**tiles, **more}, config.warps_draw).asm["ptx"]
"""


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU the kernels are compiled by every other test")
def test_every_configuration_compiles_and_reads_sixteen_bytes_an_access(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.splitlines()) == {"['ld.global.v4.b32', 'st.global.v4.b32']"}
