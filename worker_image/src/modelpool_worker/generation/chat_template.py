"""A model's chat template, rendered in a child process that is killed when it takes too long."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

from modelpool_worker.errors import NO_RETRY, InferenceFailedError, InvalidRequestError

#: Wall clock of one rendering, seconds.
RENDER_SECONDS: Final = 2.0
#: For the child to start; long, because at that time the model loads beside it on the same CPUs.
_START_SECONDS: Final = 30.0
#: For a long chat to reach the child: this process sends it in turns with its other threads.
_SEND_SECONDS: Final = 10.0
#: JSON of the longest text that the child may say, bytes: a character may take six.
_MAX_ANSWER: Final = 12 * 1024 * 1024 + 64
_RECEIVE: Final = 262_144
_CHILD: Final = "modelpool_worker.generation.template_child"

_REFUSED: Final = (
    "the model's chat template refuses these messages; expected for example a system message first, then user and "
    "assistant in turn"
)
_TOO_LARGE: Final = "these messages are too much for the model's chat template; expected fewer or shorter ones"
_TOO_SLOW: Final = (
    f"the model's chat template did not end within {RENDER_SECONDS:g} s on these messages; "
    "expected fewer or shorter ones"
)
_BROKEN: Final = (
    "the model's chat template does not work; expected a prompt in the model's own format, at /v1/completions"
)


class ChatTemplate:
    """Renders messages to the prompt that the model was trained on. Its methods block; any thread may call them.

    ``variables`` are what the template may name besides the messages, such as ``{"bos_token": "<s>"}``.
    The child starts when this is made, and anew when it died; ``close`` ends it.
    """

    def __init__(self, template: str, variables: Mapping[str, str]) -> None:
        self._first = orjson.dumps({"template": template, "variables": dict(variables)}) + b"\n"
        self._lock = threading.Lock()
        self._closed = False
        self._child: _Child | None = _Child()

    def render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """Return the prompt's text.

        A message is ``{"role": "user", "content": "hello"}``, or its content is a list of parts such as
        ``{"type": "text", "text": "hello"}`` and ``{"type": "image"}``.

        Raises ``InvalidRequestError`` for messages that the template refuses or that are too much for it, and
        ``InferenceFailedError`` where the template works for no messages.
        """
        request = orjson.dumps({"messages": list(messages), "add_generation_prompt": add_generation_prompt}) + b"\n"
        with self._lock:
            answer = self._ask(request)
        if "text" in answer:
            return str(answer["text"])
        if answer["fault"] == "broken":
            raise InferenceFailedError(_BROKEN, headers=NO_RETRY)
        raise InvalidRequestError(_REFUSED if answer["fault"] == "refused" else _TOO_LARGE, param="messages")

    def close(self) -> None:
        """End the child; nothing can be rendered any more."""
        with self._lock:
            self._closed = True
            self._end()

    def _ask(self, request: bytes) -> dict[str, Any]:
        for _attempt in range(2):  # a child that was killed from outside is not the request's fault: once more
            if self._closed:
                break
            try:
                answer = self._started().ask(request, RENDER_SECONDS)
            except TimeoutError:
                self._end()
                raise InvalidRequestError(_TOO_SLOW, param="messages") from None
            except (OSError, EOFError):
                self._end()
                continue
            if answer.get("fault") == "too large":
                self._end()  # what it took is given back at once
            return answer
        raise InferenceFailedError(_BROKEN, headers=NO_RETRY)

    def _started(self) -> "_Child":
        if self._child is None:
            self._child = _Child()
        self._child.greet(self._first)
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Child:
    """One child process and the socket to it; whoever sees an error here kills it."""

    def __init__(self) -> None:
        self._greeted = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-I", "-m", _CHILD],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                cwd="/",
                # nothing else of the worker's: its environment may hold keys
                env={"LC_ALL": "C.UTF-8", "TZ": os.environ.get("TZ", "UTC")},
                start_new_session=True,
            )

    def greet(self, first: bytes) -> None:
        """Wait until it has started, then send the template; nothing when that was done. Raises as ``ask`` does."""
        if self._greeted:
            return
        try:
            self._receive(time.monotonic() + _START_SECONDS)
            self._socket.settimeout(_START_SECONDS)
            self._socket.sendall(first)
        except TimeoutError:
            raise EOFError from None
        self._greeted = True

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Return its answer, given ``seconds`` from when it has the whole request.

        Raises ``TimeoutError``, or ``OSError`` or ``EOFError`` when the child is gone.
        """
        self._socket.settimeout(_SEND_SECONDS)
        self._socket.sendall(request)
        return dict(orjson.loads(self._receive(time.monotonic() + seconds)))

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._socket.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _receive(self, deadline: float) -> bytes:
        """Return one line, read until ``deadline`` on the monotonic clock."""
        line = bytearray()
        while not line.endswith(b"\n"):
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            part = self._socket.recv(_RECEIVE)
            line += part
            if not part or len(line) > _MAX_ANSWER:
                raise EOFError
        return bytes(line)
