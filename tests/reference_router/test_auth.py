"""API keys: who gets in, what a worker sees of it, and what a mistake in the configuration says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gaugeblock.reference.router.auth import Keys
from gaugeblock.reference.router.config import RouterConfig

KEYS = "acme:sk-one,acme:sk-two\n# rotated out, acme:sk-zero\nglobex:sk-three\n"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("T_KEYS", KEYS)
    monkeypatch.setenv("T_ADMIN", "sk-admin")
    monkeypatch.setenv("T_WORKER", "sk-worker")
    return {"api_keys_env": "T_KEYS", "admin_key_env": "T_ADMIN", "worker_key_env": "T_WORKER"}


def authorization(call: Any) -> list[bytes]:
    lines = [line for line in call.head.split(b"\r\n") if line.lower().startswith((b"authorization:", b"x-api-key:"))]
    return [line.partition(b": ")[2] for line in lines]


def test_only_known_keys_get_in_and_none_of_them_reaches_a_worker(tools: Any, settings: dict[str, Any]) -> None:
    async def main() -> None:
        worker = tools.Worker()
        rules = [{"name": "acme", "match": {"tenant": "acme"}}, {"name": "globex", "match": {"tenant": "globex"}}]
        async with tools.lab([worker], rules=rules, **settings) as lab:
            good = {
                "Authorization: Bearer sk-one": "acme",
                "authorization: bearer sk-two": "acme",
                "X-Api-Key: sk-three": "globex",
                "X-Tenant: globex\r\nAuthorization: Bearer sk-one": "acme",  # the key says who it is
            }
            for header, rule in good.items():
                answer = await lab.post("/generate", headers=f"{header}\r\n")
                assert (answer.status, answer.header("x-gaugeblock-rule")) == (200, rule), header
                assert authorization(worker.calls[-1]) == [b"Bearer sk-worker"]
            bad = ["", "Authorization: Bearer sk-zero", "Authorization: Bearer sk-on", "Authorization: Bearer SK-ONE"]
            bad += [
                "Authorization: Basic sk-one",
                "Authorization: sk-one",
                "X-Api-Key: ",
                "Authorization: Bearer sk-admin",
            ]
            for header in bad:
                refused = await lab.post("/generate", headers=f"{header}\r\n" if header else "")
                assert refused.status == 401, header
                assert json.loads(refused.body)["error"]["code"] == "invalid_api_key"
                assert refused.header("www-authenticate").startswith('Bearer realm="gaugeblock"')
            assert len(worker.calls) == len(good)
            messages = await lab.post("/v1/messages")
            assert json.loads(messages.body)["error"]["type"] == "authentication_error"

    tools.run(main())


def test_a_header_that_is_not_the_routers_key_is_passed_on(tools: Any, settings: dict[str, Any]) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker], **settings) as lab:
            await lab.post("/generate", headers="X-Api-Key: sk-one\r\nAuthorization: Bearer for-the-worker\r\n")
            assert authorization(worker.calls[-1]) == [b"Bearer for-the-worker"]
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            await lab.post("/generate", headers="Authorization: Bearer sk-one\r\n")
            assert authorization(worker.calls[-1]) == [b"Bearer sk-one"]

    tools.run(main())


def test_orders_need_the_admin_key(tools: Any, settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()], **settings) as lab:

            async def ask(method: str, path: str, key: str) -> int:
                client = await lab.client()
                client.send(f"{method} {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
                return int((await client.response()).status)

            for path in ("/health", "/liveness", "/readiness"):
                assert await ask("GET", path, "wrong") == 200
            orders = [("GET", "/workers"), ("POST", "/workers"), ("DELETE", "/workers/http://x:1"), ("POST", "/rules")]
            orders += [("GET", "/metrics"), ("GET", "/get_loads"), ("POST", "/flush_cache")]
            for method, path in orders:
                assert await ask(method, path, "wrong") == 401, path
                assert await ask(method, path, "sk-one") == 403, path
                assert await ask(method, path, "sk-admin") not in (401, 403), path
            assert await ask("GET", "/v1/models", "wrong") == 401
            assert await ask("GET", "/v1/models", "sk-one") == 200

    tools.run(main())


def test_client_keys_alone_close_the_orders_and_an_admin_key_alone_only_them(
    tools: Any, settings: dict[str, Any]
) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()], api_keys_env="T_KEYS") as lab:
            assert (await lab.ask("GET", "/workers")).status == 403
        async with tools.lab([tools.Worker()], admin_key_env="T_ADMIN") as lab:
            assert (await lab.ask("GET", "/workers")).status == 401
            assert (await lab.post("/generate")).status == 200

    tools.run(main())


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEYS)
    keys = Keys(RouterConfig(api_keys_file=str(path)), {})
    assert keys.asks
    assert [keys._tenant(key) for key in (b"sk-two", b"sk-three", b"sk-zero", b"")] == ["acme", "globex", None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sk-secret", "the variable V, line 1: a key must look like TENANT:KEY"),
        ("a:one\nb:", "the variable V, line 2: a key must look like TENANT:KEY"),
        ("a b:sk-secret", "line 1: a key must look like TENANT:KEY, TENANT 1 to 64 letters"),
        ("a:sk secret", "its second part printable ASCII without spaces"),
        ("a:sk-secret,b:sk-secret", "the variable V: the same key is given twice"),
        ("# nothing", "the variable V has no keys; write TENANT:KEY"),
        ("", "api_keys_env names the environment variable V, which is not set or empty"),
    ],
)
def test_a_mistake_is_named_and_no_key_is_shown(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Keys(RouterConfig(api_keys_env="V"), {"V": text})
    assert "secret" not in str(caught.value)
