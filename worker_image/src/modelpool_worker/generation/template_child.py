"""The child process that renders a model's chat template. Run as a module; imports jinja2 and the stdlib only.

A template is a program that came with the model. Jinja's sandbox keeps it from Python's internals; this process keeps
it from the worker's memory, time, files, network and environment. One JSON object a line: first
``{"template": …, "variables": …}``, then ``{"messages": […], "add_generation_prompt": …}`` as often as wanted; each
``messages`` is answered by ``{"text": …}`` or ``{"fault": …}``, and a line ``{}`` says that the child has started.
"""

import codecs
import importlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

#: Address space of this process, bytes; it starts with about 30 MiB.
MEMORY_BYTES: Final = 256 * 1024 * 1024
#: Processor time of one rendering: a child whose parent is gone ends itself.
CPU_SECONDS: Final = 4
#: Length of a rendered prompt, characters.
MAX_CHARS: Final = 2_000_000

#: What an answer's ``fault`` may be: the template does not compile; it refused or failed; it needs or writes too much.
BROKEN: Final = "broken"
REFUSED: Final = "refused"
TOO_LARGE: Final = "too large"

#: What jinja2 imports when a template fails or uses certain filters.
_LATE_IMPORTS: Final = ("jinja2.debug", "jinja2.constants", "pprint", "textwrap")


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant said, for training; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        # a scope of its own: what is set inside is not seen after it
        return [nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True))]


class _PublicNamespace(Namespace):
    """Jinja's ``namespace`` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # `self` is a name that a template may use
        self, *given = args
        values = dict(*given, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Dict:
    """``dict(…)`` that makes dictionaries and has nothing else to offer than ``fromkeys``."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace takes no names that begin with an underscore")


def _raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message))


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)  # noqa: DTZ005,TID251 - the wall clock is what templates ask for


def compile_template(source: str) -> Template:
    """Compile a template in the dialect that chat templates are written in; raise ``Exception`` for a broken one."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _PublicNamespace,
    }
    return environment.from_string(source)


def render(template: Template, variables: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    """Return ``{"text": …}`` or ``{"fault": …}``; whatever the template raises ends here."""
    try:
        given = {"tools": None, "documents": None, **variables, **request}
        text = "".join(_bounded(template.generate(given)))
        text.encode()  # half of a surrogate pair is text to Python, and to nobody else
    except (MemoryError, OverflowError):
        return {"fault": TOO_LARGE}
    except Exception:
        return {"fault": REFUSED}
    return {"text": text}


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    left = MAX_CHARS
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise OverflowError
        yield piece


def _confine() -> None:
    """Give up what rendering does not need: from here on no file, socket or process can be opened."""
    for module in _LATE_IMPORTS:
        importlib.import_module(module)
    codecs.lookup("unicode-escape")  # how jinja2 reads strings
    time.localtime()  # reads the time zone's file, for strftime_now
    with suppress(OSError):  # where memory runs short, this process goes first, not the worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _allow_time() -> None:
    """Start the clock of one rendering: beyond it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _say(answer: Mapping[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Compile what the first line gives, then render a line at a time until the parent closes its end."""
    _confine()
    lines = iter(sys.stdin.buffer.readline, b"")
    _say({})
    first = json.loads(next(lines, b"null"))
    if first is None:
        return
    _allow_time()
    template: Template | None = None
    with suppress(Exception):  # also memory and the depth of its nesting: it would be the same the next time
        template = compile_template(first["template"])
    for line in lines:
        _allow_time()
        try:
            request = json.loads(line)
        except MemoryError:
            _say({"fault": TOO_LARGE})
            continue
        _say({"fault": BROKEN} if template is None else render(template, first["variables"], request))


if __name__ == "__main__":
    main()
