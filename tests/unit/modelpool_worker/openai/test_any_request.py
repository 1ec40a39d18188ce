"""Whatever JSON a client writes, it is a checked request or a refusal of ours, never another error."""

import json
import subprocess
import sys
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool_worker.errors import RequestError
from modelpool_worker.openai.chat import parse_chat
from modelpool_worker.openai.completions import parse_completion

FIELDS = [
    "messages",
    "prompt",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "echo",
    "suffix",
    "best_of",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "modalities",
    "top_k",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "include_usage",
]
WORDS = ["user", "assistant", "tool", "text", "image_url", "data:image/png;base64,AAAA", "https://a.example/", ""]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url"])}, optional={"text": values, "image_url": values}
)
messages = st.fixed_dictionaries({"role": st.sampled_from(WORDS[:3])}, optional={"content": values | st.lists(parts)})
requests = st.dictionaries(st.sampled_from(FIELDS), values) | st.fixed_dictionaries({"messages": st.lists(messages)})


@given(requests, st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_fields_are_read_or_refused(fields, images):
    body = json.dumps({"model": "m"} | fields).encode()
    statuses = set()
    for read in (partial(_chat, images=images), _completion):
        try:
            texts = read(body)
        except RequestError as refused:
            statuses.add(refused.status)
        else:
            assert 1 <= len(texts) <= 512
    assert statuses <= {400, 404}


def _chat(body, images):
    request = parse_chat(body, model_name="m", images=images)
    return request.texts(dict.fromkeys(request.urls, b"fetched"))


def _completion(body):
    return parse_completion(body, model_name="m").texts()


def test_endpoints_for_text_cost_no_model_library():
    program = (
        "import sys, modelpool_worker.web.chat, modelpool_worker.web.completions;"
        "print({'torch', 'transformers', 'diffusers', 'PIL', 'httpcore', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
