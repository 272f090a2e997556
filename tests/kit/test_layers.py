"""The import direction of the folders, and what the entry point may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDER = ("kernels", "reference", "fixtures", "conformance")


def imported(path: Path) -> set[str]:
    """Top folders of gaugeblock that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("gaugeblock.")}
    return found


@pytest.mark.parametrize("folder", ORDER)
def test_layers_do_not_import_upwards(folder):
    above = set(ORDER[ORDER.index(folder) + 1 :])
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(ROOT)): imported(f) & above for f in files if imported(f) & above}
    assert not wrong


def test_plugin_imports_nothing_heavy_and_is_quick():
    script = """
import sys, time, pytest
begin = time.perf_counter()
import gaugeblock.conformance.plugin
print(time.perf_counter() - begin)
print([m for m in ("torch", "transformers", "numpy", "requests", "rich", "hypothesis") if m in sys.modules])
"""
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
        for _ in range(3)
    ]
    times = [float(run.stdout.splitlines()[0]) for run in runs]
    assert {run.stdout.splitlines()[1] for run in runs} == {"[]"}
    assert min(times) < 0.05, times
