"""The kernels compile for the GPU on a machine without one, and move 16 bytes an access there."""

import os
import subprocess
import sys

SCRIPT = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gaugeblock.kernels import add_rmsnorm, silu_and_mul
ways = (add_rmsnorm, 4096, {"WHOLE": True}), (add_rmsnorm, 4096, {"WHOLE": False}), (silu_and_mul, 14336, {})
for module, hidden, own in ways:
    kernel = getattr(module, f"_{module.CONTRACT.name}_kernel")
    first, warps = module.config_for(hidden)
    rows, cols = (1, first) if module is silu_and_mul else (max(1, first // hidden), hidden)
    names = kernel.arg_names
    constants = {"ROWS": rows, "COLS": cols, "OVERLAP": True, **own}
    kinds = {**dict.fromkeys(constants, "constexpr"), "eps": "fp32"}
    signature = {name: "*bf16" if name.endswith("_ptr") else kinds.get(name, "i32") for name in names}
    aligned = [i for i, n in enumerate(names) if n.endswith(("_ptr", "_stride")) or n == "hidden"]
    attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    print(sorted(set(re.findall(r"(?:ld|st)\\.global\\.[\\w.]+", compiled.asm["ptx"]))))
"""


def test_loads_and_stores_are_sixteen_bytes_wide(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["['ld.global.v4.b32', 'st.global.v4.b32']"] * 3
