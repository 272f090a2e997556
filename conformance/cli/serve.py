"""``gaugeblock serve``: run the reference engine or router, for a look at them or as a stand-in."""

from __future__ import annotations

import os
from importlib import resources

import click

from gaugeblock.fixtures.serve import serve_engine, serve_router


@click.group()
def serve() -> None:
    """Serve a part of the reference stack until SIGTERM or Ctrl-C."""


@serve.command()
@click.option("--model", metavar="PATH", help="A Hugging Face folder of the Llama architecture; default: tiny-llama.")
@click.option("--served-model-name", metavar="NAME", help="The name in /v1/models; default: the folder's name.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, default=30000, show_default=True)
@click.option("--page-size", type=click.IntRange(1, 1024), default=16, show_default=True, help="Tokens a page.")
@click.option("--max-total-tokens", type=click.IntRange(1), default=16384, show_default=True, help="KV pool size.")
@click.option("--chunked-prefill-size", type=click.IntRange(1), default=64, show_default=True, help="Tokens a step.")
@click.option("--host-kv-tokens", type=click.IntRange(0), default=0, show_default=True, help="Host tier size.")
@click.option("--api-key-env", metavar="VAR", default="GAUGEBLOCK_API_KEY", show_default=True)
def engine(model: str | None, api_key_env: str, **fields: object) -> None:
    """Serve the reference engine: SGLang's native API and OpenAI's."""
    path = model or str(resources.files("gaugeblock.golden").joinpath("tiny-llama"))
    serve_engine({**fields, "model_path": path, "api_key": os.environ.get(api_key_env)})


@serve.command()
@click.option("--worker-url", "worker_urls", multiple=True, required=True, metavar="URL", help="Repeat for several.")
@click.option("--policy", default="cache_aware", show_default=True, metavar="NAME")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, default=30100, show_default=True)
def router(**fields: object) -> None:
    """Serve the reference router in front of running workers."""
    serve_router(dict(fields))
