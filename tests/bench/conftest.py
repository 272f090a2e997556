import pytest

from .made_up import shrink_ceilings


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
    shrink_ceilings(monkeypatch)
