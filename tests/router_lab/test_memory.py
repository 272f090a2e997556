from __future__ import annotations

import sys

from gaugeblock.fixtures.launch import free_port, start_server
from gaugeblock.fixtures.memory import can_measure, resident_bytes

HOLDER = """
import http.server, sys
kept = bytearray(48 << 20)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_memory_of_a_started_server_is_that_of_its_group() -> None:
    assert can_measure()
    port = free_port()
    with start_server("holder", [sys.executable, "-c", HOLDER, str(port)], port=port) as server:
        assert 48 << 20 <= resident_bytes(server.process.pid) <= 120 << 20
        group = server.process.pid
    assert resident_bytes(group) == 0
