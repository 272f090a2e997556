"""The options for a model in INT8, of every command that runs one."""

from __future__ import annotations

import click

QUANTIZATION = click.option(
    "--quantization", type=click.Choice(["int8"]), help="INT8 weights and activations on the host; default: fp32."
)
QUANTIZED_PATH = click.option(
    "--quantized-path", metavar="FILE", help="Keep INT8 weights there: made at the first start, read at the next."
)
