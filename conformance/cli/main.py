"""``gaugeblock``: the command line. Each command lives in a module of its own and is loaded when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from gaugeblock.conformance.interrupts import keep_interrupts
from gaugeblock.conformance.verdict import EXIT_CODES
from gaugeblock.fixtures.errors import EnvironmentFault, KitError, legal_name

COMMANDS = {
    "verify": "verify:verify",
    "checks": "listing:checks",
    "faults": "listing:faults",
    "teeth": "teeth:teeth",
    "serve": "serve:serve",
    "compare": "compare:compare",
    "calibrate": "calibrate:calibrate",
    "watch": "watch:watch",
    "load": "load:load",
    "profile": "profile:profile",
    "place": "place:place",
    "bench": "bench:bench",
    "simulate": "simulate:simulate",
    "env": "env:env",
}


class LazyGroup(click.Group):
    """Imports a command's module on use, so that ``gaugeblock --help`` and one command pay for no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command.

        Raises:
            KitError: no such command; the message lists the legal ones.
        """
        module, _, name = COMMANDS[legal_name("command", cmd_name, COMMANDS)].partition(":")
        command: click.Command = getattr(importlib.import_module(f"gaugeblock.conformance.cli.{module}"), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="gaugeblock")
def cli() -> None:
    """Conformance and regression kit for LLM serving stacks.

    Start with `gaugeblock verify`. Alone it checks the embedded reference stack; with --engine-url and
    --router-url it checks yours.
    """


def run() -> None:
    """Console entry point: misuse is one line on standard error and exit code 2, a broken environment 4."""
    keep_interrupts()
    try:
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = EXIT_CODES["usage"]
    except EnvironmentFault as error:
        click.echo(f"gaugeblock: {error}", err=True)
        status = EXIT_CODES["error"]
    except KitError as error:
        click.echo(f"gaugeblock: {error}", err=True)
        status = EXIT_CODES["usage"]
    except (KeyboardInterrupt, click.Abort):
        click.echo("gaugeblock: interrupted", err=True)
        status = EXIT_CODES["partial"]
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    run()
