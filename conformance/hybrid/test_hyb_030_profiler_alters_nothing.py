"""HYB-030."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaugeblock.conformance.check import check

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@check(
    "HYB-030",
    feature="placement",
    bound="equal in every bit: outputs of each pass under the profiler, parameters, buffers, random state and hooks; "
    "also when the module raises",
)
def test_hyb_030(pretend: type[PretendDevices], record_property: Callable[[str, object], None]) -> None:
    """Profiling a model alters no output and leaves nothing behind

    A model that serves after it was profiled is the one that was loaded. Look at hooks that are not removed when a pass
    ends by an exception, and at buffers that a pass in training mode moves on.
    """
    import torch
    from torch import nn

    from gaugeblock.fixtures.targets.pretend_devices import WIDTH, Model, model_input

    world = pretend()
    model = Model(world)
    x = model_input()
    plain = model(x)
    seen: list[Tensor] = []
    spy = model.register_forward_hook(lambda module, args, output: seen.append(output))
    before = _state(model)
    world.profile(model, (x,))
    wrong = [number for number, output in enumerate(seen) if not torch.equal(output, plain)]
    assert not wrong, f"passes {wrong} of {len(seen)} under the profiler gave another output"
    assert len(seen) >= 12, f"only {len(seen)} passes: nothing was profiled"
    _assert_same(before, _state(model), "after profiling")
    spy.remove()

    training = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout())
    before = _state(training)
    world.profile(training, (x,))
    _assert_same(before, _state(training), "after profiling a module in training mode")

    broken = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(1, 1))
    before = _state(broken)
    try:
        world.profile(broken, (x,))
    except RuntimeError:
        _assert_same(before, _state(broken), "after the module raised")
    else:
        raise AssertionError("the profiler kept the module's own error to itself")
    record_property("evidence", f"{len(seen)} passes equal in every bit, {len(before)} things unchanged by an error")


def _state(module: nn.Module) -> dict[str, object]:
    """What a module is: its tensors, its hooks by submodule, its mode, and the random state."""
    import torch

    state: dict[str, object] = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for name, sub in module.named_modules():
        state |= {f"{name or 'the module'}.{kind}": list(getattr(sub, kind)) for kind in HOOKS}
        state[f"{name or 'the module'}.training"] = sub.training
    return {**state, "the random state": torch.get_rng_state()}


def _assert_same(before: dict[str, object], after: dict[str, object], when: str) -> None:
    import torch

    def same(a: object, b: object) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b

    changed = [name for name in {**before, **after} if not same(before.get(name), after.get(name))]
    assert not changed, f"{when} these have changed: {', '.join(changed)}"
