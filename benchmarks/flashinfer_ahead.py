"""Compile what the kernel suite calls of flashinfer, on a machine that needs no GPU.

    .venv/bin/python benchmarks/flashinfer_ahead.py --out DIR
    python3 benchmarks/on_gpu.py peers --peer flashinfer --site DIR --out RESULTS      # on the GPU machine

flashinfer compiles its CUDA sources where they are first called: some 130 files of up to a minute each, while the GPU
waits. Where it finds a library in its folder ``data/aot``, it loads that. This script fetches flashinfer and
CUDA's compiler from the package registry, builds those libraries, and leaves them in ``DIR/site`` with flashinfer's
wheels in ``DIR``, as ``on_gpu.py --site`` takes them. Libraries that are there already are not built again.

The GPU machine needs Linux on x86-64, a GPU of ``--arch`` and a PyTorch for CUDA 13.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WHEELS = ("flashinfer-python==0.6.12", "apache-tvm-ffi==0.1.11", "einops", "tabulate", "tqdm", "click")
"""What the GPU machine needs."""
TOOLS = ("ninja", "requests", "certifi", "idna", "urllib3", "charset-normalizer", "nvidia-ml-py")
CUDA = tuple(f"nvidia-{name}==13.0.*" for name in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-runtime", "cuda-cccl"))
HEADERS = ("nvidia-cublas==13.0.*", "nvidia-curand==10.4.*")
HEAD_DIMS = (128, 64, 256)
PIP_SECONDS = 1800.0


def main() -> int:
    """Build what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arch", default="9.0a", help="as flashinfer names it; 9.0a: H100 and H200")
    parser.add_argument("--python", default="3.12", help="the GPU machine's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="files compiled at once")
    work = Path(tempfile.gettempdir()) / "gaugeblock-flashinfer"
    parser.add_argument("--work", type=Path, default=work, help="tools and object files; 2 GB")
    options = parser.parse_args()
    fetch_wheels(options.out, options.python)
    prepare(options.work, options.arch, options.jobs)
    libraries = options.out / "site" / "flashinfer" / "data" / "aot"
    for spec in specs():
        begin = time.monotonic()
        library = libraries / spec.name / f"{spec.name}.so"
        if not library.exists():
            spec.build(verbose=False)
            library.parent.mkdir(parents=True, exist_ok=True)
            part = library.with_suffix(".part")
            shutil.copy(spec.jit_library_path, part)
            part.replace(library)  # cut short, half a library would pass for one
        print(f"{library.stat().st_size / 2**20:5.1f} MiB {time.monotonic() - begin:4.0f} s {spec.name}", flush=True)
    return 0


def pip(*words: str) -> None:
    """Run pip, or end with what it says."""
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=PIP_SECONDS)
    if done.returncode:
        raise SystemExit(f"pip {' '.join(words)}\n{done.stderr.strip()}")


def fetch_wheels(folder: Path, python: str) -> None:
    """Put flashinfer's wheels into a folder, for another machine's Python."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = ["any", "manylinux2014_x86_64", *(f"manylinux_2_{glibc}_x86_64" for glibc in (17, 24, 28, 34))]
    other = [f"--platform={platform}" for platform in platforms]
    other += ["--only-binary=:all:", f"--python-version={python}"]
    pip("download", "--no-deps", *other, "--dest", str(folder), *WHEELS)


def prepare(work: Path, arch: str, jobs: int) -> None:
    """Install the tools into a folder of their own, and show them to flashinfer: before it is imported."""
    tools = work / "tools"
    if not (tools / "complete").exists():
        shutil.rmtree(tools, ignore_errors=True)
        pip("install", "--no-deps", "--target", str(tools), *WHEELS, *TOOLS, *CUDA, *HEADERS)
        complete_cuda(tools / "nvidia" / "cu13")
        (tools / "complete").touch()
    os.environ["PATH"] = os.pathsep.join([str(tools / "bin"), os.environ["PATH"]])
    os.environ |= {"CUDA_HOME": str(tools / "nvidia" / "cu13"), "FLASHINFER_WORKSPACE_BASE": str(work)}
    os.environ |= {"FLASHINFER_CUDA_ARCH_LIST": arch, "MAX_JOBS": str(jobs)}
    sys.path.append(str(tools))  # after what is installed: PyTorch, of any build, is


def complete_cuda(home: Path) -> None:
    """Add what a linker looks for and the wheels leave out: names without a version, and a driver to link against."""
    (home / "lib64").symlink_to("lib")
    (home / "lib" / "libcudart.so").symlink_to("libcudart.so.13")
    (home / "lib" / "stubs").mkdir(exist_ok=True)
    driver = ["cc", "-shared", "-x", "c", os.devnull, "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*driver, "-o", str(home / "lib" / "stubs" / "libcuda.so")], check=True)


def specs() -> Iterator[Any]:
    """Yield flashinfer's builds: what the adapter in ``fixtures/peers`` calls, what is short to compile first."""
    import torch
    from flashinfer.jit.activation import gen_act_and_mul_module
    from flashinfer.jit.attention.modules import gen_batch_prefill_module
    from flashinfer.jit.norm import gen_norm_module
    from flashinfer.jit.rope import gen_rope_module
    from flashinfer.jit.sampling import gen_sampling_module

    yield from (gen_act_and_mul_module(name) for name in ("silu", "gelu", "gelu_tanh"))
    yield from (gen_norm_module(), gen_rope_module(), gen_sampling_module())
    # fa3: extend attention on Hopper; fa2: decode attention on tensor cores
    for head_dim, dtype, backend in itertools.product(HEAD_DIMS, (torch.bfloat16, torch.float16), ("fa3", "fa2")):
        dtypes = (dtype, dtype, dtype, torch.int32)
        yield gen_batch_prefill_module(backend, *dtypes, head_dim, head_dim, 0, False, False, False)


if __name__ == "__main__":
    sys.exit(main())
