"""What fusing residual add and RMSNorm buys, and what it may not cost: time and error beside PyTorch's own ops.

    python examples/ch07_operator_fusion.py [--rows 4096] [--hidden 4096]

On a GPU the times mean something; on a CPU Triton interprets the kernel, so only the errors do and the sizes shrink.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from gaugeblock.kernels.add_rmsnorm import CONTRACT, add_rmsnorm

REPEATS = 50


def microseconds(call: object, *inputs: torch.Tensor) -> float:
    """Return the median time of a call on the GPU, by events."""
    times = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call(*inputs)  # type: ignore[operator] # the two implementations share one signature
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def main() -> None:
    """Print error and, on a GPU, time of both."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096 if gpu else 16)
    parser.add_argument("--hidden", type=int, default=4096 if gpu else 512)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)  # drawn on the CPU: the same data on every card
    shape = (options.rows, options.hidden)
    device = "cuda" if gpu else "cpu"
    x = torch.randn(shape, generator=generator).bfloat16().to(device)
    residual = torch.randn(shape, generator=generator).bfloat16().to(device)
    weight = torch.randn(options.hidden, generator=generator).bfloat16().to(device)

    total = (x.double() + residual.double()).bfloat16().double()  # the sum, rounded once as the op stores it
    scale = torch.rsqrt(total.square().mean(-1, keepdim=True) + 1e-6)
    exact = total * scale * weight.double()
    for name, call in (("unfused", CONTRACT.eager), ("fused", add_rmsnorm)):
        y = call(x, residual, weight)[0]
        error = ((y.double() - exact).norm() / exact.norm()).item()
        time = f", {microseconds(call, x, residual, weight):.1f} µs" if gpu else ""
        print(f"{name:8} relative error {error:.2e}{time}")


if __name__ == "__main__":
    main()
