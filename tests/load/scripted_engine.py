"""A scripted engine for the load runs: a paced server with a model list, and what it is told to do wrong.

``python scripted_engine.py PORT TTFT TPOT TOKENIZER_FOLDER MODE [KEY]``; MODE is ``good``, ``every-third-fails``,
``all-fail``, ``one-piece`` (no chunks: the body ends with the connection) or ``echo-key`` (errors repeat the API key).
"""

import asyncio
import json
import sys
from typing import Any

from gaugeblock.fixtures.load.paced_server import Paced


class ScriptedEngine(Paced):
    def __init__(self, ttft: float, tpot: float, folder: str, mode: str, key: str | None) -> None:
        super().__init__(ttft, tpot)
        self.folder, self.mode, self.key = folder, mode, key
        self.chats = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            answer = self.answer(lines[0].split(" ")[1], fields, body)
            if answer is None:
                again = asyncio.StreamReader()
                again.feed_data(head + body)
                again.feed_eof()
                await super().serve(again, writer)
                return
            self.write(writer, *answer)
            await writer.drain()
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    def answer(self, path: str, fields: dict[str, str], body: bytes) -> tuple[int, Any] | None:
        if self.key and fields.get("authorization") != f"Bearer {self.key}" and path != "/health":
            return 401, {"error": {"message": f"bad key {fields.get('authorization')}"}}
        if path == "/truth":
            return 200, self.truth()
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": "scripted", "object": "model", "owned_by": "scripted"}]}
        if path == "/get_model_info":
            return 200, {"model_path": self.folder, "is_generation": True}
        if path in ("/health", "/flush_cache"):
            return 200, {}
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": "no such path"}}
        request = json.loads(body)
        if not request.get("messages"):
            return 400, {"error": {"message": "no messages"}}
        if not request.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": " a"}, "finish_reason": "length"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return 200, {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        return self.streamed(fields)

    def streamed(self, fields: dict[str, str]) -> tuple[int, Any] | None:
        self.chats += 1
        if self.mode == "all-fail" or (self.mode == "every-third-fails" and self.chats % 3 == 0):
            return 500, {"error": {"message": "out of luck"}}
        if self.mode == "echo-key":
            return 500, {"error": {"message": f"you sent {fields.get('authorization')}"}}
        if self.mode == "one-piece":
            return -200, None
        return None

    @staticmethod
    def write(writer: asyncio.StreamWriter, status: int, data: Any) -> None:
        if status < 0:
            delta = {"role": "assistant", "content": " a"}
            chunk = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            last = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": "length"}]}
            usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}}
            events = [json.dumps(event) for event in (*[chunk] * 7, last, usage)]
            text = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + text.encode()
            )
            return
        body = json.dumps(data).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)


async def main(port: int, engine: ScriptedEngine) -> None:
    server = await asyncio.start_server(engine.serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    where, first, between, tokenizer, kind, *rest = sys.argv[1:]
    scripted = ScriptedEngine(float(first), float(between), tokenizer, kind, rest[0] if rest else None)
    asyncio.run(main(int(where), scripted))
