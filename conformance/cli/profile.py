"""``gaugeblock profile``: which operators a model spends its time in, what to fuse, and what fusing it gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gaugeblock.conformance.out import prepare_out
from gaugeblock.fixtures.embedded import given_model, tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.targets.options import TargetOptions

if TYPE_CHECKING:
    from gaugeblock.conformance.profiling.study import Study

OURS = ("profile.json", "trace.json", "trace-fused.json")
WRONG = 1
WIDE = 150


@click.command()
@click.option("--model", type=Path, metavar="PATH", help="A Hugging Face folder; the tiny model of the kit by default.")
@click.option("--engine-url", metavar="URL", help="Profile a live engine instead, through its /start_profile.")
@click.option("--trace", type=Path, metavar="FILE", help="Read a trace of torch.profiler that is there already.")
@click.option("--prompt-tokens", type=int, default=128, show_default=True, help="Tokens of the prefill.")
@click.option("--decode-tokens", type=int, default=8, show_default=True, help="Decode steps.")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), default="bf16", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--no-fuse", is_flag=True, help="Profile only; replace and re-measure nothing.")
@click.option("--nsys", is_flag=True, help="Run COMMAND (an engine's launch) under Nsight Systems; write it after --.")
@click.option("--api-key-env", default="GAUGEBLOCK_API_KEY", show_default=True, metavar="VAR")
@click.option(
    "--out", type=Path, default=Path("gaugeblock-profile"), show_default=True, help="profile.json, trace.json."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def profile(
    model: Path | None,
    engine_url: str | None,
    trace: Path | None,
    prompt_tokens: int,
    decode_tokens: int,
    dtype: str,
    device: str | None,
    no_fuse: bool,
    nsys: bool,
    api_key_env: str,
    out: Path,
    command: tuple[str, ...],
) -> int:
    """Profile a model operator by operator, name what to fuse, and re-measure with the fused op in place.

    Writes profile.json, trace.json (open it in Perfetto or chrome://tracing) and trace-fused.json.

    Exit codes: 0 measured, 1 a replacement failed or changed the model's outputs, 2 usage, 4 the engine is not
    reachable or the device missing.
    """
    _refuse_contradictions(model, engine_url, trace, nsys, command)
    prepare_out(out, OURS)
    options = TargetOptions(engine_urls=(engine_url,) if engine_url else (), api_key_env=api_key_env)
    if nsys:
        from gaugeblock.conformance.profiling.nsys import wrap

        return wrap(list(command), engine_url, options.api_key, prompt_tokens, decode_tokens, out)
    if engine_url:
        from gaugeblock.conformance.profiling.live import profile_engine

        study = profile_engine(engine_url, options.api_key, prompt_tokens, decode_tokens, out)
    elif trace:
        from gaugeblock.conformance.profiling.study import read_study

        study = read_study(str(trace), trace, None)
    else:
        study = _model(model or tiny_model(), dtype, device, prompt_tokens, decode_tokens, out, not no_fuse)
    return _finish(study, out)


def _refuse_contradictions(
    model: Path | None, engine_url: str | None, trace: Path | None, nsys: bool, command: tuple[str, ...]
) -> None:
    if nsys and not command:
        raise KitError("--nsys needs the command to run: gaugeblock profile --nsys -- python -m sglang.launch_server …")
    if command and not nsys:
        raise KitError(f"what is {command[0]!r}? Only --nsys takes a command")
    named = [name for name, given in (("--model", model), ("--engine-url", engine_url), ("--trace", trace)) if given]
    if len(named) > 1 or (nsys and named not in ([], ["--engine-url"])):
        raise KitError(f"{' and '.join([*named, *(['--nsys'] if nsys else [])])} exclude each other")


def _model(folder: Path, dtype: str, device: str | None, prompt: int, decode: int, out: Path, fuse: bool) -> Study:
    given_model(folder)
    import torch
    from rich.console import Console

    from gaugeblock.conformance.profiling.study import study_model
    from gaugeblock.conformance.profiling.workload import load_model

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with Console(stderr=True).status("loading") as status:
        model = load_model(folder, dtype, device)
        return study_model(model, str(folder), prompt, decode, out, status.update, fuse)


def _finish(study: Study, out: Path) -> int:
    from rich.console import Console

    from gaugeblock.conformance.profiling.report import show, write_report

    path = write_report(study, out)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)  # a file has no edge; tables would be folded at 80
    show(study, console)
    fused = study.trace.with_name("trace-fused.json")
    click.echo("written: " + ", ".join(str(p) for p in (path, study.trace, fused) if p.exists()))
    return WRONG if study.wrong or study.failures else 0
