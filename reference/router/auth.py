"""API keys: who may send requests, and who may give orders.

Keys come from an environment variable or a file, never from a command line that every process list shows. Each is
``TENANT:KEY``, separated by commas or lines; a line that begins with ``#`` is a comment. A tenant may have several
keys, so that they can be replaced one by one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import replace

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.config_file import read_file
from gaugeblock.reference.router.front import Request
from gaugeblock.reference.router.http1 import Header
from gaugeblock.reference.router.reply import Reply
from gaugeblock.reference.router.tables import check_name
from gaugeblock.reference.router.view import FAMILIES

_CARRIERS = (b"authorization", b"x-api-key")  # the second is how Messages clients send theirs


class Keys:
    """The keys in force. ``asks`` and ``asks_admin`` say whether clients and administrators need one.

    Keys are kept and compared as digests under a key of this process, all of them each time: how long a comparison
    takes tells nothing of how close a guess was.

    Raises:
        ValueError: a named variable or file is missing, empty or malformed; no message shows a key.
    """

    def __init__(self, config: RouterConfig, environ: Mapping[str, str]) -> None:
        self._salt = secrets.token_bytes(32)
        self._clients: list[tuple[bytes, str]] = []
        if config.api_keys_env is not None:
            self._add(f"the variable {config.api_keys_env}", _variable(environ, "api_keys_env", config.api_keys_env))
        if config.api_keys_file is not None:
            self._add(config.api_keys_file, read_file(config.api_keys_file))
        admin, worker = (
            _variable(environ, name, getattr(config, name)) for name in ("admin_key_env", "worker_key_env")
        )
        self._admin = self._digest(admin.encode()) if admin else None
        self._worker: list[Header] = [(b"Authorization", b"Bearer " + worker.encode())] if worker else []
        self.asks = bool(self._clients)
        self.asks_admin = self.asks or self._admin is not None

    def admit(self, request: Request, reply: Reply) -> Request | None:
        """Return a request with its tenant and without the router's key, or None if it has been refused."""
        headers: list[Header] = []
        tenant = None
        for header in request.head.headers:
            found = self._tenant(_key_in(*header))
            if found is None:
                headers.append(header)
            tenant = tenant or found
        if tenant is None:
            self._refuse(request, reply)
            return None
        if not any(name.lower() == b"authorization" for name, _ in headers):
            headers += self._worker
        return request._replace(tenant=tenant, head=request.head._replace(headers=headers))

    def admit_admin(self, request: Request, reply: Reply) -> bool:
        """Whether a request carries the admin key; if not it has been refused."""
        sent = [key for header in request.head.headers if (key := _key_in(*header)) is not None]
        if self._admin is not None and any(hmac.compare_digest(self._admin, self._digest(key)) for key in sent):
            return True
        if any(self._tenant(key) is not None for key in sent) or self._admin is None:
            message = "this path needs the admin key" + ("" if self._admin else ", and none is configured")
            reply.error(403, "Forbidden", "admin_key_required", message)
        else:
            self._refuse(request, reply)
        return False

    def _add(self, source: str, text: str) -> None:
        lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
        before = len(self._clients)
        for number, entry in [(number, part.strip()) for number, line in lines for part in line.split(",")]:
            if entry:
                tenant, colon, key = entry.partition(":")
                wrong = f"{source}, line {number}: a key must look like TENANT:KEY"
                if not colon or not key.isascii() or not key.isprintable() or " " in key or not key:
                    raise ValueError(f"{wrong}, its second part printable ASCII without spaces")
                try:
                    check_name("TENANT", tenant)
                except ValueError:  # its text would show what may be a key
                    raise ValueError(f"{wrong}, TENANT 1 to 64 letters, digits, dots, dashes or underscores") from None
                self._clients.append((self._digest(key.encode()), tenant))
        if len(self._clients) == before:
            raise ValueError(f"{source} has no keys; write TENANT:KEY, separated by commas or lines")
        if len({digest for digest, _ in self._clients}) < len(self._clients):
            raise ValueError(f"{source}: the same key is given twice")

    def _tenant(self, key: bytes | None) -> str | None:
        if key is None:
            return None
        digest, found = self._digest(key), None
        for known, tenant in self._clients:
            if hmac.compare_digest(known, digest):
                found = tenant
        return found

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt, digest_size=32).digest()

    def _refuse(self, request: Request, reply: Reply) -> None:
        """Answer 401 (RFC 9110, section 15.5.2) with the challenge of RFC 6750, section 3."""
        sent = any(name in request.head.fields for name in _CARRIERS)
        challenge = b'Bearer realm="gaugeblock"' + (b', error="invalid_token"' if sent else b"")
        message = "the API key is not valid" if sent else "an API key is needed: send Authorization: Bearer KEY"
        family = FAMILIES.get(request.path, "openai")
        headers = [(b"WWW-Authenticate", challenge)]
        reply.error(401, "Unauthorized", "invalid_api_key", message, family=family, headers=headers)


def with_worker_key(config: RouterConfig, environ: Mapping[str, str]) -> RouterConfig:
    """Return the configuration with the workers' key from the variable that it names.

    Raises:
        ValueError: there is no such variable.
    """
    key = _variable(environ, "worker_key_env", config.worker_key_env)
    return replace(config, worker_api_key=key) if key else config


def _variable(environ: Mapping[str, str], field: str, name: str | None) -> str:
    if name is None:
        return ""
    value = environ.get(name, "").strip()
    if not value:
        raise ValueError(f"{field} names the environment variable {name}, which is not set or empty")
    return value


def _key_in(name: bytes, value: bytes) -> bytes | None:
    """Return the key that a header field carries, None if it is none that carries one."""
    lower = name.lower()
    if lower == b"x-api-key":
        return value
    if lower == b"authorization":
        scheme, _, key = value.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None
    return None
