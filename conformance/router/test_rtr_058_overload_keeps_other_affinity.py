"""RTR-058."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from gaugeblock.conformance.check import check
from gaugeblock.conformance.engine.evidence import Note
from gaugeblock.conformance.outcome import inconclusive
from gaugeblock.conformance.router.labs import LabFactory
from gaugeblock.conformance.router.texts import unrelated
from gaugeblock.fixtures.workers.script import Answer

PREFIXES, HOT, PATIENCE = 36, 96, 8.0
"""Fair placement leaves one of 3 workers without any of 36 prefixes with probability 1e-6."""


@check(
    "RTR-058",
    feature="cache-aware",
    level="extended",
    bound="exact: the homes are idle, so load does not argue against them",
    sources=("https://github.com/sgl-project/sglang/issues/32195",),
)
def test_rtr_058(router_lab: LabFactory, note: Note) -> None:
    """While one worker is overloaded, prefixes that live on others stay where they are cached.

    One hot prefix made the router forget affinity for all: every prompt went to whoever had least to do, and every
    cache went cold at once. Look at whether imbalance switches the policy, or only moves what one worker cannot take.
    """
    lab = router_lab("cache_aware", fresh=True)
    hot, *prompts = unrelated(PREFIXES + 1, size=3000, seed=lab.mark())
    homes = {prompt: lab.send(prompt).worker for prompt in prompts}
    busy = lab.worker(lab.send(hot).worker)
    others = [prompt for prompt, home in homes.items() if home != busy.name]
    random.Random(5).shuffle(others)
    if len({homes[prompt] for prompt in others}) < 2:
        inconclusive(
            f"{PREFIXES} unrelated prompts live on too few workers to judge: {sorted(homes.values())}; see RTR-005"
        )
    gate = lab.gate()
    busy.always(Answer(hold=gate))
    answered: list[int] = []

    def one() -> None:
        answered.append(lab.send(hot).reply.status)
        lab.loop.notify()

    with ThreadPoolExecutor(HOT) as pool:
        for _ in range(HOT):
            pool.submit(one)
        try:
            lab.loop.wait_for(
                lambda: len(answered) + busy.in_flight >= HOT,
                PATIENCE,
                lambda: f"{HOT} requests stuck at {busy.name} or answered by others: {len(answered)}, {lab.counts()}",
            )
            stuck = busy.in_flight
            strayed = [prompt for prompt in others if lab.send(prompt).worker != homes[prompt]]
        finally:
            gate.open()
    note(f"{busy.name} was stuck with {stuck}; {len(others) - len(strayed)} of {len(others)} others stayed at home")
    assert stuck, f"no request with the hot prefix went home to {busy.name}"
    assert not strayed, (
        f"while {busy.name} had {stuck} requests, {len(strayed)} of {len(others)} prompts left idle workers that had "
        "them cached"
    )
