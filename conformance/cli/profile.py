"""``gaugeblock profile``: which operators a model spends its time in, what to fuse, and what fusing it gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gaugeblock.conformance.out import prepare_file, prepare_out
from gaugeblock.fixtures.embedded import given_model, tiny_model
from gaugeblock.fixtures.errors import KitError
from gaugeblock.fixtures.extras import require
from gaugeblock.fixtures.targets.options import TargetOptions

if TYPE_CHECKING:
    from gaugeblock.conformance.profiling.study import Study

REPORT = "profile.json"
OF_A_MODEL = (REPORT, "trace.json", "trace-fused.json")
WRONG = 1
WIDE = 150


@click.command()
@click.option("--model", type=Path, metavar="PATH", help="A Hugging Face folder; the tiny model of the kit by default.")
@click.option("--engine-url", metavar="URL", help="Profile a live engine by its /start_profile; with --model, both.")
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
@click.pass_context
def profile(
    context: click.Context,
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

    Writes profile.json, trace.json (open it in Perfetto or chrome://tracing) and trace-fused.json. With both --model
    and --engine-url the engine is profiled first, its report goes to the folder engine of --out, and then the model
    here: an engine's modules cannot be replaced from outside. --trace and --nsys go with neither of the others, but
    --nsys may be told the --engine-url at which the engine that it starts will answer.

    Exit codes: 0 measured, 1 a replacement failed or changed the model's outputs, 2 usage, 4 the engine is not
    reachable, or the device or nsys missing.
    """
    _refuse_contradictions(model, engine_url, trace, nsys, command)
    here = not trace and not nsys and (model is not None or not engine_url)
    _refuse_idle(context, here, engine_url)
    if model is not None:
        given_model(model)
    options = TargetOptions(engine_urls=(engine_url,) if engine_url else (), api_key_env=api_key_env)
    if nsys:
        from gaugeblock.conformance.profiling.nsys import wrap

        prepare_out(out)
        return wrap(list(command), engine_url, options.api_key, prompt_tokens, decode_tokens, out)
    require("profiling", "torch", "triton")
    if trace:
        return _read(trace, out)
    prepare_out(out, (*OF_A_MODEL, *([f"engine/{REPORT}"] if engine_url else [])) if here else (REPORT,))
    status = 0
    if engine_url:
        from gaugeblock.conformance.profiling.live import profile_engine

        study = profile_engine(engine_url, options.api_key, prompt_tokens, decode_tokens, out)
        status = _finish(study, out / "engine" if here else out, study.trace)
    if here:
        study = _model(model or tiny_model(), dtype, device, prompt_tokens, decode_tokens, out, not no_fuse)
        status = max(status, _finish(study, out, *(out / name for name in OF_A_MODEL[1:])))
    return status


def _refuse_contradictions(
    model: Path | None, engine_url: str | None, trace: Path | None, nsys: bool, command: tuple[str, ...]
) -> None:
    if nsys and not command:
        raise KitError("--nsys needs the command to run: gaugeblock profile --nsys -- python -m sglang.launch_server …")
    if command and not nsys:
        raise KitError(f"what is {command[0]!r}? Only --nsys takes a command")
    given = (("--model", model), ("--engine-url", engine_url), ("--trace", trace), ("--nsys", nsys))
    named = [name for name, value in given if value]
    if len(named) > 1 and named not in (["--model", "--engine-url"], ["--engine-url", "--nsys"]):
        raise KitError(f"{' and '.join(named)} exclude each other: each is another thing to profile")


def _refuse_idle(context: click.Context, here: bool, engine_url: str | None) -> None:
    """Refuse options that were given and would change nothing in what is profiled."""
    heard = {"prompt_tokens", "decode_tokens"} if here or engine_url else set()
    heard |= {"dtype", "device", "no_fuse"} if here else set()
    heard |= {"api_key_env"} if engine_url else set()
    options = ("prompt_tokens", "decode_tokens", "dtype", "device", "no_fuse", "api_key_env")
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if idle := ["--" + name.replace("_", "-") for name in given if name not in heard]:
        modes = [mode for mode in ("model", "engine_url", "trace", "nsys") if context.params[mode]]
        what = " and ".join("--" + mode.replace("_", "-") for mode in modes) or "the tiny model"
        raise KitError(f"{', '.join(idle)} would change nothing with {what}")


def _read(trace: Path, out: Path) -> int:
    """Read a trace that is there already, before anything in ``out``, where it may lie, is touched."""
    from gaugeblock.conformance.profiling.study import read_study

    study = read_study(str(trace), trace, None)
    prepare_file(out / REPORT, trace)
    prepare_out(out, (REPORT,))
    return _finish(study, out)


def _model(folder: Path, dtype: str, device: str | None, prompt: int, decode: int, out: Path, fuse: bool) -> Study:
    import torch
    from rich.console import Console

    from gaugeblock.conformance.profiling.study import study_model
    from gaugeblock.conformance.profiling.workload import load_model

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with Console(stderr=True).status("loading") as status:
        model = load_model(folder, dtype, device)
        return study_model(model, str(folder), prompt, decode, out, status.update, fuse)


def _finish(study: Study, out: Path, *traces: Path) -> int:
    from rich.console import Console

    from gaugeblock.conformance.profiling.report import show, write_report

    path = write_report(study, out)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)  # a file has no edge; tables would be folded at 80
    show(study, console)
    click.echo("written: " + ", ".join(str(p) for p in (path, *traces) if p.exists()))
    return WRONG if study.wrong or study.failures else 0
