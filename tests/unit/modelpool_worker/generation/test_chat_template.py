"""Chat templates: the same text as the library's, and a template that misbehaves harms nobody."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from modelpool_worker.errors import InferenceFailedError, InvalidRequestError
from modelpool_worker.generation.chat_template import RENDER_SECONDS, ChatTemplate

pytestmark = pytest.mark.models

SECRET = "swordfish"
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}

PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße, «友達»! <b>&amp;</b> \"quoted\" 'too'\n\ttab 🙂"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "  spaces  "},
]
PARTS = [
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}, {"type": "text", "text": "Say."}],
    },
    {"role": "assistant", "content": "A fish."},
]

TEMPLATES = {
    "plain": PLAIN,
    "blocks on lines of their own": """
{{ bos_token }}
{%- for message in messages %}
    {% if message.role == 'user' %}
        [USER] {{ message.content }}
    {% elif message.role == 'assistant' %}
        {% generation %}
        {{ message.content }}{{ eos_token }}
        {% endgeneration %}
    {% else %}
        {{- message.content | trim }}
    {% endif %}
{% endfor %}
""",
    "json": "{{ messages | tojson }}{{ messages | tojson(indent=2, sort_keys=true) }}"
    "{{ '<é>' | tojson(ensure_ascii=true) }}",
    "filters that are imported late": "{{ messages | pprint }}{{ messages[0].role | wordwrap(3) }}",
    "loop controls": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}"
    "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "namespace and macros": "{% set ns = namespace(n=0, self=1) %}{% macro show(m) %}<{{ m.role }}>{% endmacro %}"
    "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ show(m) }}{% endfor %}{{ ns.n }}{{ dict(a=1) }}",
    "what is not given": "{% if tools is none and documents is none %}none{% endif %}{{ unk_token }}"
    "{{ nobody is defined }}",
    "content of parts": "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% elif 'text' in p %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}",
    "the day": "{{ strftime_now('%d %B %Y') }} {{ strftime_now('%Z') }}",
    "a scope of its own": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "string methods": "{{ messages[-1].content.strip().upper().split('P') | join('-') }}{{ messages[::-1] | length }}",
}


@contextmanager
def template(source, variables=VARIABLES):
    made = ChatTemplate(source, variables)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0})), bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("messages", [CONVERSATION, PARTS], ids=["strings", "parts"])
@pytest.mark.parametrize("prompted", [True, False], ids=["answer follows", "no answer follows"])
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_the_text_is_the_librarys(tokenizer, source, prompted, messages):
    if messages is PARTS and source is TEMPLATES["string methods"]:
        messages = messages[1:]
    if messages is PARTS and source is TEMPLATES["blocks on lines of their own"]:
        messages = messages[1:]
    expected = tokenizer.apply_chat_template(
        messages, chat_template=source, tokenize=False, add_generation_prompt=prompted
    )
    with template(source) as ours:
        assert ours.render(messages, add_generation_prompt=prompted) == expected


HELLO = [{"role": "user", "content": f"hello {SECRET}"}]

ATTACKS = {
    "says why it refuses": "{{ raise_exception(messages[0].content) }}",
    "fails": "{{ messages[0].content + 1 }}",
    "a name that is not there": "{{ messages.nothing.more }}",
    "Python's internals": "{{ messages.__class__.__mro__[-1].__subclasses__() }}",
    "internals by a filter": "{{ (messages | attr('__class__')).__base__ }}",
    "internals by format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "internals of a global": "{{ raise_exception.__globals__['sys'].exit(1) }}",
    "internals of the namespace": "{{ namespace.__init__.__globals__ }}",
    "a namespace's dunder": "{% set ns = namespace() %}{% set ns.__class__ = dict %}{{ ns }}",
    "changes a message": "{{ messages.append(1) }}",
    "another file": "{% include '/etc/passwd' %}",
    "half a character": "{{ '\\ud800' }}",
    "a huge range": "{% for i in range(10**9) %}{{ i }}{% endfor %}",
    "a huge string": "{{ 'a' * 10**9 }}",
    "a huge string of the message": "{{ messages[0].content * 10**8 }}",
    "a huge format": "{{ '%2000000000d' | format(1) }}",
    "centred": "{{ messages[0].role.center(10**9) }}",
    "a string that doubles": "{% set ns = namespace(s='abcd') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}"
    "{% endfor %}{{ ns.s | length }}",
    "endless output": "{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxxxxx{% endfor %}{% endfor %}",
    "a deep macro": "{% macro deeper(n) %}{{ deeper(n + 1) }}{% endmacro %}{{ deeper(0) }}",
}
SLOW_ATTACKS = {
    "nested loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "one long sum": "{{ (messages[0].content | length) ** (10 ** 9) }}",
    "a sum when it is compiled": "{{ 7 ** (10 ** 9) }}",
}


def _resident_mib(pid="self"):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


@pytest.mark.parametrize("source", [*ATTACKS.values(), *SLOW_ATTACKS.values()], ids=[*ATTACKS, *SLOW_ATTACKS])
def test_a_template_that_attacks_is_refused_in_time_and_repeats_nothing(source):
    with template(f"{{% if messages | length == 1 %}}{source}{{% endif %}}fine") as ours:
        resident, start = _resident_mib(), time.monotonic()
        with pytest.raises(InvalidRequestError) as refused:
            ours.render(HELLO)
        assert time.monotonic() - start < RENDER_SECONDS + 10  # the child's start on a busy machine
        assert _resident_mib() - resident < 64
        assert "expected" in str(refused.value)
        assert SECRET not in str(refused.value)
        if source != SLOW_ATTACKS["a sum when it is compiled"]:
            assert ours.render([*HELLO, *HELLO]) == "fine"


@pytest.mark.parametrize(
    "source",
    ["{% for m in messages %}", "{{ ", "{% unknown %}", "{{ x | nofilter }}", "(" * 5 + "{{" + "(" * 100_000],
    ids=["no end", "cut", "unknown tag", "unknown filter", "deep"],
)
def test_a_broken_template_is_the_models_fault_and_not_worth_a_second_try(source):
    with template(source) as ours:
        for _ in range(2):
            with pytest.raises(InferenceFailedError) as failed:
                ours.render(HELLO)
            assert failed.value.headers["x-should-retry"] == "false"
            assert "/v1/completions" in str(failed.value)


def _pid(ours):
    return ours._child._process.pid


def test_a_child_that_somebody_kills_is_replaced_unseen():
    with template(PLAIN) as ours:
        before = ours.render(HELLO)
        pid = _pid(ours)
        os.kill(pid, signal.SIGKILL)
        assert ours.render(HELLO) == before
        assert _pid(ours) != pid


def test_a_child_that_hangs_is_replaced():
    with template(PLAIN) as ours:
        before = ours.render(HELLO)
        os.kill(_pid(ours), signal.SIGSTOP)
        with pytest.raises(InvalidRequestError, match="did not end within"):
            ours.render(HELLO)
        assert ours.render(HELLO) == before


def test_the_child_knows_nothing_and_can_open_nothing(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with template(PLAIN) as ours:
        ours.render(HELLO)
        process = Path(f"/proc/{_pid(ours)}")
        limits = {line[:26].strip(): line[26:].split()[0] for line in (process / "limits").read_text().splitlines()}
        assert (limits["Max open files"], limits["Max processes"], limits["Max file size"]) == ("3", "0", "0")
        assert int(limits["Max address space"]) <= 256 * 1024 * 1024
        assert SECRET not in (process / "environ").read_text()
        assert not any(
            "torch" in line or "transformers" in line for line in (process / "maps").read_text().splitlines()
        )
        assert _resident_mib(_pid(ours)) < 64


def test_one_rendering_may_use_only_so_much_time_even_without_its_parent():
    with template(PLAIN) as ours:
        ours.render(HELLO)
        limits = Path(f"/proc/{_pid(ours)}/limits").read_text()
        (soft,) = [line.split()[3] for line in limits.splitlines() if line.startswith("Max cpu time")]
        assert int(soft) < 10


def test_a_long_chat_is_rendered_whole_and_a_longer_one_is_refused():
    with template("{% for m in messages %}{{ m.content }}{% endfor %}") as ours:
        long = "\x01ü" * 1_000_000  # the control character takes six bytes on the way
        assert ours.render([{"role": "user", "content": long}]) == long
        with pytest.raises(InvalidRequestError, match="too much"):
            ours.render([{"role": "user", "content": long + "x"}])
        assert ours.render(HELLO) == HELLO[0]["content"]


def test_the_child_ends_with_its_parent_however_that_ends():
    program = (
        "import os; from modelpool_worker.generation.chat_template import ChatTemplate\n"
        "ours = ChatTemplate('fine', {}); ours.render([{}]); print(ours._child._process.pid, flush=True); os._exit(1)"
    )
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    with suppress(ProcessLookupError):  # gone already
        child = os.pidfd_open(int(died.stdout))
        try:
            assert select.select([child], [], [], 20)[0]  # readable once it has ended
        finally:
            os.close(child)


def test_what_is_closed_has_no_child_and_renders_no_more():
    ours = ChatTemplate(PLAIN, VARIABLES)
    ours.render(HELLO)
    pid = _pid(ours)
    ours.close()
    ours.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(InferenceFailedError):
        ours.render(HELLO)
