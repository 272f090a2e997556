"""Fixtures of the checks on kernels: the module under check, and each op of the contracts in turn."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.conformance.plugin import OPTIONS, TARGETS

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.kernels import KernelTarget
    from gaugeblock.kernels.contract import Op

REMEDY = "the kernels need torch and triton: pip install 'gaugeblock[gpu]'"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each kernel check once an op; a check module with ``OPS`` or ``applies(op)`` is about those alone."""
    if "op_name" not in metafunc.fixturenames:
        return
    try:
        from gaugeblock.kernels.contract import load_contracts

        wanted = metafunc.config.getoption("gb_op")
        names = [name for name, op in load_contracts().items() if concerns(metafunc.module, op)]
        names = [name for name in names if not wanted or name in wanted]
    except ModuleNotFoundError:
        names = ["none"]
    metafunc.parametrize("op_name", names)


def concerns(module: ModuleType, op: Op) -> bool:
    """Whether the check in a module is about an op: all are, unless ``OPS`` or ``applies(op)`` there says otherwise."""
    applies: Callable[[Op], bool] = getattr(module, "applies", lambda op: True)
    return op.name in getattr(module, "OPS", [op.name]) and applies(op)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark kernel checks with ``gpu`` where they run on one: ``-m gpu`` takes them there, never the interpreter."""
    if "kernels" in getattr(item, "fixturenames", ()) and _device() == "cuda":
        item.add_marker("gpu")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why ``-m gpu`` left nothing."""
    if config.getoption("markexpr", "") == "gpu" and config.getoption("gb_kernels") and _device() != "cuda":
        terminalreporter.write_line("no kernel check ran: PyTorch finds no CUDA device; they run without -m gpu too")


def _device() -> str:
    try:
        from gaugeblock.kernels import runtime
    except ModuleNotFoundError:
        return "none"
    return runtime.DEVICE


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """End a kernel check as unsupported where the target says that it does not offer the op in the form asked for."""
    try:
        return (yield)
    except Exception as error:
        if "kernels" in pyfuncitem.fixturenames:
            from gaugeblock.kernels.arguments import Unclaimed

            if isinstance(error, Unclaimed):
                unsupported(str(error))
        raise


@pytest.fixture(scope="session")
def kernels(request: pytest.FixtureRequest) -> KernelTarget:
    """The module under check: ``--gb-kernels``, or the reference kernels (in Triton's interpreter without a GPU).

    A module that cannot be had has ended the run before, when the options were read.
    """
    try:
        from gaugeblock.fixtures.targets.kernels import load_kernels
    except ModuleNotFoundError:
        unsupported(REMEDY)
    target = load_kernels(request.config.stash[OPTIONS].kernels)
    request.config.stash[TARGETS]["kernels"] = {
        "module": target.name,
        "device": target.device,
        "ops": sorted(target.functions),
    }
    return target


@pytest.fixture
def op(op_name: str, kernels: KernelTarget) -> Op:
    """One op's contract; an op that the target lacks ends the check as unsupported."""
    from gaugeblock.kernels.contract import load_contracts

    contract = load_contracts()[op_name]
    if op_name not in kernels.functions:
        unsupported(f"{kernels.name} has no {op_name}: give it {contract.signature}")
    return contract
