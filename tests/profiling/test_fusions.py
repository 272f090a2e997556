"""Fused ops in a real model: the outputs stay, a wrong op is seen, and the model is itself again afterwards."""

import pytest
import torch

from gaugeblock.conformance.profiling import attention
from gaugeblock.conformance.profiling.agreement import Judge
from gaugeblock.conformance.profiling.fusions import FUSIONS, available
from gaugeblock.conformance.profiling.patching import fused
from gaugeblock.conformance.profiling.workload import load_model, make_workload, run
from gaugeblock.fixtures.embedded import tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.kernels.contract import load_contracts

CONTRACTS = load_contracts()
BY_OP = {fusion.op: fusion for fusion in FUSIONS}
LLAMA = ("add_rmsnorm", "silu_and_mul", "rope", "decode_attention", "extend_attention")
PLACES = (8, 4, 4, 4, 4)


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model(), "bf16", "cpu")


@pytest.fixture(scope="module")
def judge(model):
    return Judge(model, make_workload(model, 12, 2))


def logits(model):
    return torch.cat(run(model, make_workload(model, 12, 2), every_position=True)[1], dim=1)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_llama_has_a_place_for_five_ops(model):
    assert [fusion.op for fusion in available(model)] == list(LLAMA)
    with fused(model, {BY_OP[name]: CONTRACTS[name].eager for name in LLAMA}) as places:
        assert places == dict(zip(LLAMA, PLACES, strict=True))


@pytest.mark.parametrize("implementation", ["eager", "kernel"])
@pytest.mark.parametrize("name", LLAMA)
def test_the_model_computes_the_same_with_the_op_in_place(judge, name, implementation):
    agreement = judge.judge({BY_OP[name]: getattr(CONTRACTS[name], implementation)})
    assert agreement.right, agreement
    assert 0 <= agreement.fp32.value < 1e-4


def test_the_op_is_really_called(model):
    calls = []

    def counting(*inputs, **params):
        calls.append(inputs[0].shape)
        return CONTRACTS["add_rmsnorm"].eager(*inputs, **params)

    with fused(model, {BY_OP["add_rmsnorm"]: counting}):
        logits(model)
    assert len(calls) == 3 * 8  # one prefill, two decode steps; all norms but the first, the final one included
    assert set(calls) == {(1, 12, 256), (1, 1, 256)}


@pytest.mark.parametrize(
    ("name", "steps", "shape"), [("decode_attention", [13, 14], (1, 4, 64)), ("extend_attention", [12], (12, 4, 64))]
)
def test_attention_is_called_over_pages_that_hold_the_context(model, name, steps, shape):
    lengths = []

    def counting(q, k_cache, v_cache, block_table, seq_lens, *rest):
        assert q.shape == shape
        assert k_cache.shape == v_cache.shape == (block_table.numel(), 16, 2, 64)
        lengths.append(int(seq_lens))
        return CONTRACTS[name].eager(q, k_cache, v_cache, block_table, seq_lens, *rest)

    with fused(model, {BY_OP[name]: counting}):
        logits(model)
    assert lengths == [length for length in steps for _ in range(4)]


def test_a_cache_that_outgrows_its_pages_keeps_its_context(model):
    work = make_workload(model, 20, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SPARE", 1)  # 20 tokens and one: two pages, full after twelve more
        patch.setattr(attention, "PAGE", 7)
        agreement = Judge(model, work).judge({BY_OP["decode_attention"]: CONTRACTS["decode_attention"].eager})
    assert agreement.right, agreement


def test_all_together_compute_the_same(judge):
    assert judge.judge({BY_OP[name]: CONTRACTS[name].eager for name in LLAMA}).right


def test_the_model_is_itself_again_afterwards(model):
    before, weights = logits(model), state(model)
    ids = {name: id(parameter) for name, parameter in model.named_parameters()}
    forwards = {id(m): m.forward.__func__ for m in model.modules()}
    with fused(model, {BY_OP[name]: CONTRACTS[name].eager for name in LLAMA}):
        logits(model)
    assert all("forward" not in vars(m) and m.forward.__func__ is forwards[id(m)] for m in model.modules())
    assert torch.equal(logits(model), before)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == ids
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_model_is_itself_again_after_an_op_that_raises(model):
    before = logits(model)

    def broken(*_inputs, **_params):
        raise RuntimeError("no such kernel image")

    with pytest.raises(RuntimeError, match="kernel image"), fused(model, {BY_OP[n]: broken for n in LLAMA}):
        logits(model)
    assert torch.equal(logits(model), before)


def _norm_of(total, weight, eps):
    return torch.nn.functional.rms_norm(total, (total.shape[-1],), weight, eps)


def _without_the_residual(x, residual, weight, eps):
    return _norm_of(x, weight, eps), x + residual


def _loses_the_sum(x, residual, weight, eps):
    return _norm_of(x + residual, weight, eps), residual


def _ignores_the_weight(x, residual, weight, eps):
    return _norm_of(x + residual, torch.ones_like(weight), eps), x + residual


def _larger_epsilon(x, residual, weight, eps):
    return _norm_of(x + residual, weight, 1e-3), x + residual


def _gate_and_up_swapped(x):
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(up) * gate


def _gelu_instead(x):
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.gelu(gate) * up


def _turns_backwards(q, k, positions, table):
    cos, sin = table.chunk(2, dim=-1)
    return CONTRACTS["rope"].eager(q, k, positions, torch.cat([cos, -sin], dim=-1))


def _one_position_on(q, k, positions, table):
    return CONTRACTS["rope"].eager(q, k, (positions + 1).clamp(max=len(table) - 1), table)


def _interleaved(q, k, positions, table):
    return CONTRACTS["rope"].eager(q, k, positions, table, True)


def _forgets_the_newest(q, k_cache, v_cache, table, lengths, scale):
    return CONTRACTS["decode_attention"].eager(q, k_cache, v_cache, table, lengths - 1, scale)


def _swaps_keys_and_values(q, k_cache, v_cache, table, lengths, scale):
    return CONTRACTS["decode_attention"].eager(q, v_cache, k_cache, table, lengths, scale)


def _sees_the_future(q, k_cache, v_cache, table, lengths, starts, scale):
    whole = CONTRACTS["decode_attention"].eager
    return torch.cat([whole(row[None], k_cache, v_cache, table, lengths, scale) for row in q])


def _forgets_the_scale(q, k_cache, v_cache, table, lengths, starts, scale):
    return CONTRACTS["extend_attention"].eager(q, k_cache, v_cache, table, lengths, starts, 1.0)


def _keys_stay(q, k, positions, table):
    return CONTRACTS["rope"].eager(q, k, positions, table)[0], k


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("add_rmsnorm", _without_the_residual),
        ("add_rmsnorm", _loses_the_sum),
        ("add_rmsnorm", _ignores_the_weight),
        ("add_rmsnorm", _larger_epsilon),
        ("silu_and_mul", _gate_and_up_swapped),
        ("silu_and_mul", _gelu_instead),
        ("rope", _turns_backwards),
        ("rope", _one_position_on),
        ("rope", _interleaved),
        ("rope", _keys_stay),
        ("decode_attention", _forgets_the_newest),
        ("decode_attention", _swaps_keys_and_values),
        ("extend_attention", _sees_the_future),
        ("extend_attention", _forgets_the_scale),
    ],
)
def test_a_wrong_replacement_is_seen(judge, name, wrong):
    agreement = judge.judge({BY_OP[name]: wrong})
    assert not agreement.right, agreement
    assert agreement.fp32.value > 10 * agreement.fp32.limit


SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("qwen3", list(LLAMA), []),
        ("mistral", list(LLAMA[:3]), []),  # its attention has a window
        ("phi3", ["add_rmsnorm", "rope", *LLAMA[3:]], []),  # its gate and up are one product already
        ("gemma", ["gelu_and_mul", "rope", *LLAMA[3:]], []),  # its norm multiplies by 1 + weight
        ("gpt_neox", ["ln_linear"], []),
        ("glm", ["add_rmsnorm", *LLAMA[3:]], ["rope"]),  # turns neighbours
    ],
)
def test_relatives_take_what_fits_them_and_the_outputs_say_so(kind, right, wrong):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL)).eval()
    for name, parameter in other.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    own = Judge(other, make_workload(other, 9, 2))
    judged = {fusion.op: own.judge({fusion: CONTRACTS[fusion.op].eager}).right for fusion in available(other)}
    assert judged == {**dict.fromkeys(right, True), **dict.fromkeys(wrong, False)}


def test_gpt2_has_a_place_for_layernorm_and_linear():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_positions=64, n_embd=64, n_layer=2, n_head=2)
    gpt2 = GPT2LMHeadModel(config).eval()
    for name, parameter in gpt2.named_parameters():
        if "ln_" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    assert [fusion.op for fusion in available(gpt2)] == ["ln_linear"]
    own = Judge(gpt2, make_workload(gpt2, 9, 1))
    assert own.judge({BY_OP["ln_linear"]: CONTRACTS["ln_linear"].eager}).right
    plain = CONTRACTS["ln_linear"].eager
    exact = {"activation": "gelu"}
    assert not own.judge({BY_OP["ln_linear"]: lambda *a: plain(*a[:-1], **exact)}).right


def test_a_norm_of_another_form_is_left_alone(model):
    """Gemma's norm multiplies by 1 + weight: the same parts by name, another function."""
    norm = type(model.model.norm)
    original = norm.forward
    try:
        norm.forward = lambda self, x: original(self, x) + x
        assert "add_rmsnorm" not in [fusion.op for fusion in available(model)]
    finally:
        norm.forward = original


@pytest.mark.parametrize(("prompt", "decode"), [(1, 1), (4, 0), (2048, 1)])
def test_work_that_does_not_fit_is_refused(model, prompt, decode):
    with pytest.raises(KitError, match="tokens"):
        make_workload(model, prompt, decode)
