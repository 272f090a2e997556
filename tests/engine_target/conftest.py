from contextlib import ExitStack

import pytest

from gaugeblock.fixtures.workers.hostile import HostileServer


@pytest.fixture
def hostile():
    with ExitStack() as stack:
        yield lambda scripts: stack.enter_context(HostileServer(scripts))
