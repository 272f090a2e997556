"""``gaugeblock``: the command line. Each command lives in a module of its own and is loaded when it is used."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback

import click

from gaugeblock.conformance.interrupts import keep_interrupts
from gaugeblock.conformance.verdict import EXIT_CODES
from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetFault, legal_name
from gaugeblock.fixtures.extras import EXTRAS, remedy

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
    """Console entry point: misuse is one line on standard error and exit code 2, a broken environment 4.

    An error of the kit's own is 4, too, never the 1 that Python ends with: that would say that a target is wrong.
    """
    keep_interrupts()
    end_on_sigterm()
    status = _run()
    _let_go_of_output()
    sys.exit(status)


def _run() -> int:
    """Run the command line and return the exit code."""
    try:
        status = cli.main(standalone_mode=False)
        _flush()
    except click.ClickException as error:
        error.show()
        return EXIT_CODES["usage"]
    except EnvironmentFault as error:
        return _said(str(error), "error")
    except KitError as error:
        return _said(str(error), "usage")
    except (KeyboardInterrupt, click.Abort):
        return _said("interrupted", "partial")
    except (TargetFault, OSError) as error:  # the target broke where nothing is checked; a disk is full
        return EXIT_CODES["error"] if isinstance(error, BrokenPipeError) else _said(str(error), "error")
    except SystemExit as end:
        return _ended(end)
    except ModuleNotFoundError as error:
        return _lacking(error)
    except Exception as error:
        return _failed(error)
    return status if isinstance(status, int) else 0


def _said(line: str, code: str) -> int:
    click.echo(f"gaugeblock: {line}", err=True)
    return EXIT_CODES[code]


def _ended(end: SystemExit) -> int:
    """Nothing of the kit's ends a run so: click does when nobody reads the output any more, or a module of the user."""
    return EXIT_CODES["error"] if isinstance(end.__context__, BrokenPipeError) else _failed(end)


def _lacking(error: ModuleNotFoundError) -> int:
    if error.name not in EXTRAS:
        return _failed(error)
    return _said(f"this needs {error.name}: {remedy(error.name)}", "error")


def _failed(error: BaseException) -> int:
    traceback.print_exception(error)
    name = type(error).__name__
    return _said(f"an error of the kit's own, please report it with the lines above: {name}: {error}", "error")


def _let_go_of_output() -> None:
    """Throw away output that cannot be written, on which Python would end with a code of its own."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flush() -> None:
    if sys.stdout is not None:  # it is None where the caller has closed it
        sys.stdout.flush()


ECHO = 1.0  # seconds in which a second SIGTERM is the first one's: `timeout` signals a process, then its whole group


def end_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, so that results are written and servers ended. A fork dies of it as ever."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    last = -ECHO

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= ECHO:
            if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a job in the background
                signal.signal(signal.SIGINT, signal.default_int_handler)  # by which what Python drops is raised anew
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


if __name__ == "__main__":
    run()
