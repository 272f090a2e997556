"""The options for a model in INT8, of every command that runs one."""

from __future__ import annotations

import click

from gaugeblock.fixtures.errors import KitError

QUANTIZATION = click.option(
    "--quantization", type=click.Choice(["int8"]), help="INT8 weights and activations on the host; default: fp32."
)
QUANTIZED_PATH = click.option(
    "--quantized-path", metavar="FILE", help="Keep INT8 weights there: made at the first start, read at the next."
)


def refuse_idle_path(quantization: str | None, path: str | None) -> None:
    """Refuse ``--quantized-path`` where nothing is quantised: it would be neither read nor written.

    Raises:
        KitError: saying what to give, too.
    """
    if quantization is None and path is not None:
        raise KitError("--quantized-path FILE keeps INT8 weights: give --quantization int8, too")
