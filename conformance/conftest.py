"""Collected with the checks: answers a run that names no target with the way to name one."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run checks without a target."""
    if items and not config.pluginmanager.has_plugin("gaugeblock-session"):
        pytest.exit(
            "gaugeblock: no target named. Give --gb for the embedded reference, or --gb-engine-url URL, "
            "--gb-router-url URL, --gb-router-cmd CMD, --gb-router NAME, --gb-kernels MODULE, --gb-kv MODULE, "
            "--gb-int8 MODULE",
            returncode=2,
        )
