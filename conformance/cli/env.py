"""``gaugeblock env``: the environments of real systems that must not share ours."""

from __future__ import annotations

import click

from gaugeblock.fixtures import envs


@click.group("env")
def env() -> None:
    """Environments of real systems: genai-bench, sglang-cpu, sglang-router, smg."""


@env.command("install")
@click.argument("name")
def install_command(name: str) -> None:
    """Install NAME from its lock; does nothing when it is there."""
    found = envs.install(name, say=lambda line: click.echo(line, err=True))
    click.echo(f"{name} {found.recipe.version} is installed in {found.root}")


@env.command("list")
def list_command() -> None:
    """List all environments and their state."""
    for item in envs.status():
        where = str(item.root) if item.state != "absent" else f"about {item.recipe.megabytes} MB to install"
        click.echo(f"{item.recipe.name:14} {item.recipe.version:14} {item.state:11} {where}")


@env.command("path")
@click.argument("name")
def path_command(name: str) -> None:
    """Print the folder of NAME, if it is installed."""
    click.echo(envs.require(name).root)


@env.command("remove")
@click.argument("name")
def remove_command(name: str) -> None:
    """Delete NAME, older versions of it included."""
    gone = envs.remove(name)
    click.echo("\n".join(f"removed {path}" for path in gone) or f"{name} was not installed")
