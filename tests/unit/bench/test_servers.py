"""Servers under test: ready, parked, running again, ended; and the releases that the peers are pinned to."""

import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.peer_environments import FOLDER, locked, pinned
from bench.servers import Program, Server
from cluster.host import ClusterError, free_ports

CHECKOUT = Path(__file__).parents[3]
SCRIPT = """
import http.server, json, subprocess, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def do_GET(self):
        self.answer(200, "ok")
    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(422 if sent == "wrong" else 200, {"got": sent})
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def start(script=SCRIPT):
        (port,) = free_ports(1)
        program = Program("echo", (sys.executable, "-c", script, str(port)), port, "/health")
        started.append(Server(program, {"PATH": "/usr/bin:/bin"}, tmp_path / "echo.log"))
        return started[-1]

    yield start
    for each in started:
        each.end()


def healthy(server, seconds):
    try:
        with urllib.request.urlopen(server.program.url("/health"), timeout=seconds):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def test_a_parked_server_does_nothing_until_its_turn(start):
    server = start()
    server.wait_ready()
    server.park()
    assert not healthy(server, 0.2)
    with server.running():
        assert server.post("/x", {"input": "a"}) == {"got": {"input": "a"}}
    assert not healthy(server, 0.2)


def test_a_parked_server_can_be_ended(start):
    server = start()
    server.wait_ready()
    server.park()
    server.end()
    assert not healthy(server, 0.2)


def test_a_server_that_ends_says_why(start):
    with pytest.raises(ClusterError, match="no such model"):
        start("raise SystemExit('no such model')").wait_ready()


def test_a_refused_request_says_what_was_answered(start):
    server = start()
    server.wait_ready()
    with pytest.raises(ClusterError, match="422"):
        server.post("/x", "wrong")


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers", "sentence-transformers", "uvicorn"])
def test_peers_in_the_current_environment_have_the_workers_releases(package):
    """Else releases are compared, not servers. Change ``peers/current.in`` and make ``current.txt`` again."""
    assert pinned(FOLDER / "current.txt")[package] == locked(CHECKOUT / "uv.lock")[package]


def test_infinity_runs_on_the_workers_torch():
    """Change ``peers/infinity.in`` and make ``infinity.txt`` again."""
    assert pinned(FOLDER / "infinity.txt")["torch"] == locked(CHECKOUT / "uv.lock")["torch"]


@pytest.mark.parametrize("name", ["infinity", "current", "litellm"])
def test_what_was_asked_for_is_what_is_pinned(name):
    wanted = pinned(FOLDER / f"{name}.in")
    found = pinned(FOLDER / f"{name}.txt")
    assert wanted.items() <= found.items()
