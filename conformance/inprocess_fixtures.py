"""Fixtures of the layers that run in the check's own process: prefill, kv, hybrid."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from gaugeblock.conformance.outcome import unsupported
from gaugeblock.conformance.plugin import OPTIONS, TARGETS

if TYPE_CHECKING:
    from gaugeblock.fixtures.targets.inprocess import InProcess
    from gaugeblock.fixtures.targets.inprocess_disk import DiskBench
    from gaugeblock.fixtures.targets.inprocess_kv import KVBench
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBenches
    from gaugeblock.fixtures.targets.int8_target import Int8Target
    from gaugeblock.fixtures.targets.kv_target import KVFactory, KVTarget
    from gaugeblock.fixtures.targets.pretend_devices import PretendDevices

REMEDY = "the in-process layers need torch and safetensors: pip install 'gaugeblock[embedded]'"


@contextmanager
def needs_torch() -> Iterator[None]:
    """End the check as unsupported where what it imports is not installed."""
    try:
        yield
    except ModuleNotFoundError:
        unsupported(REMEDY)


@pytest.fixture(scope="session")
def inprocess(request: pytest.FixtureRequest) -> InProcess:
    """The reference engine's parts with the tiny model, whose held-out text and bounds these checks are made for."""
    with needs_torch():
        from gaugeblock.fixtures.targets.inprocess import load_inprocess
    loaded = load_inprocess()
    request.config.stash[TARGETS]["in-process"] = {"target": "gaugeblock.reference", "model": loaded.folder.name}
    return loaded


@pytest.fixture(scope="session")
def int8_linear(request: pytest.FixtureRequest) -> Int8Target:
    """The INT8 linear layer under check: that of ``--gb-int8``, or the reference's."""
    named: str | None = request.config.stash[OPTIONS].int8
    with needs_torch():
        from gaugeblock.reference.hybrid import int8
    if named is None:
        return int8
    from gaugeblock.fixtures.targets.int8_target import load_int8

    request.config.stash[TARGETS]["int8"] = {"target": named}
    return load_int8(named)


@pytest.fixture(scope="session")
def int8_recipe(inprocess: InProcess) -> InProcess:
    """The same model in INT8 as the reference makes it, rotated and calibrated, whose bounds are its own."""
    from gaugeblock.fixtures.targets.inprocess import quantized

    return quantized(inprocess)


@pytest.fixture(scope="session")
def int8(request: pytest.FixtureRequest, inprocess: InProcess, int8_linear: Int8Target) -> InProcess:
    """The same model on the CPU path, with the INT8 linear under check in every layer."""
    from gaugeblock.fixtures.targets.inprocess import quantized

    if request.config.stash[OPTIONS].int8 is None:
        own: InProcess = request.getfixturevalue("int8_recipe")
        return own
    return quantized(inprocess, int8_linear)


@pytest.fixture(scope="session")
def placed(inprocess: InProcess) -> PlacedTarget:
    """The same model, whose operators can be placed on two devices."""
    from gaugeblock.fixtures.targets.inprocess_placed import PlacedTarget

    return PlacedTarget(inprocess)


@pytest.fixture
def pretend() -> type[PretendDevices]:
    """Makes two places of known costs with a clock of their own."""
    with needs_torch():
        from gaugeblock.fixtures.targets.pretend_devices import PretendDevices
    return PretendDevices


@pytest.fixture
def kv_bench() -> type[KVBench]:
    """Makes a KV manager: ``kv_bench(pages, host_bytes=0)``."""
    with needs_torch():
        from gaugeblock.fixtures.targets.inprocess_kv import KVBench
    return KVBench


@pytest.fixture
def kv_disk() -> Generator[DiskBench]:
    """A folder for a disk store, and pages to store in it."""
    with needs_torch():
        from gaugeblock.fixtures.targets.inprocess_disk import DiskBench, scratch
    with scratch() as folder:
        bench = DiskBench(folder)
        yield bench
        bench.close()


@pytest.fixture
def kv_target(request: pytest.FixtureRequest) -> Generator[KVFactory]:
    """Makes the KV manager under check, ``kv_target(pages, below)``: that of ``--gb-kv``, or the reference's.

    Raises:
        KitError: the module cannot be imported or has no factory.
    """
    from gaugeblock.fixtures.targets.kv_target import load_kv, make_target

    named: str | None = request.config.stash[OPTIONS].kv
    factory: KVFactory
    if named is None:
        with needs_torch():
            from gaugeblock.fixtures.targets.kv_reference import make_kv_target
        factory = make_kv_target
    else:
        factory = load_kv(named)
    made: list[KVTarget] = []

    def make(pages: int, below: int) -> KVTarget:
        made.append(make_target(factory, pages, below))
        request.config.stash[TARGETS]["kv"] = {
            "target": made[-1].name,
            "capabilities": sorted(made[-1].capabilities),
            "tiers": {tier: usage.capacity for tier, usage in made[-1].usage().items()},
        }
        return made[-1]

    yield make
    for target in made:
        target.close()


@pytest.fixture
def kv_tiers() -> Generator[TierBenches]:
    """Makes the tiers below the device: ``kv_tiers(host_pages, disk_pages)``."""
    with needs_torch():
        from gaugeblock.fixtures.targets.inprocess_disk import scratch
    from gaugeblock.fixtures.targets.inprocess_tiers import TierBenches

    with scratch() as folder:
        benches = TierBenches(folder)
        yield benches
        benches.close()
