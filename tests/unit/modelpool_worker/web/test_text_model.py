"""A real model behind the endpoints: what clients read is what the library writes, whole or streamed, alone or not."""

import asyncio

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelpool_worker.capabilities.text_to_text import TextToText
from tiny_models import text_decoder

pytestmark = pytest.mark.models

PROMPTS = ["Once upon a time", "The quick brown fox jumps over the lazy dog", "Zwölf Boxkämpfer", "1 2 3", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    text_decoder.build(folder)
    return folder


@pytest.fixture(scope="module")
def library(folder):
    """A function that writes greedily with the library alone: (messages or prompt, new tokens) → text, ids."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)

    def write(given, number):
        if isinstance(given, str):
            ids = tokenizer(given, return_tensors="pt")["input_ids"]
        else:
            ids = tokenizer.apply_chat_template(
                given, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"]
        with torch.no_grad():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=number, do_sample=False)
        new = whole[0, ids.shape[1] :]
        return tokenizer.decode(new, skip_special_tokens=True), new.tolist(), ids.shape[1]

    return write


@pytest.fixture
async def client(folder, speaking):
    async with (
        speaking(model=TextToText(), model_source=f"file://{folder}", dtype="float32") as (_worker, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


async def streamed(stream):
    """Return a stream's text and its usage."""
    text, usage = "", None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""
    return text, usage


async def test_completions_are_the_librarys_text(client, library):
    fields = {"model": "org/m", "temperature": 0, "max_tokens": 40}
    together = await client.completions.create(prompt=PROMPTS, **fields)
    distinct = set()
    for prompt, choice in zip(PROMPTS, together.choices, strict=True):
        text, ids, prompt_tokens = library(prompt, 40)
        distinct |= set(ids)
        assert choice.text == text
        stream = await client.completions.create(
            prompt=prompt, stream=True, stream_options={"include_usage": True}, **fields
        )
        assert await streamed(stream) == (
            text,
            openai.types.CompletionUsage(
                prompt_tokens=prompt_tokens, completion_tokens=len(ids), total_tokens=prompt_tokens + len(ids)
            ),
        )
    assert len(distinct) > 30  # a model that repeats itself would pass by accident


async def test_chats_at_once_are_the_librarys_text(client, library):
    chats = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}] for prompt in PROMPTS]
    fields = {"model": "org/m", "temperature": 0, "max_tokens": 40}
    answers = await asyncio.gather(
        *(client.chat.completions.create(messages=messages, **fields) for messages in chats),
        *(_streamed_chat(client, messages, fields) for messages in chats),
    )
    whole, streams = answers[: len(chats)], answers[len(chats) :]
    for messages, answer, text in zip(chats, whole, streams, strict=True):
        expected = library(messages, 40)[0]
        assert (answer.choices[0].message.content, text) == (expected, expected)


async def _streamed_chat(client, messages, fields):
    return (await streamed(await client.chat.completions.create(messages=messages, stream=True, **fields)))[0]


async def test_a_seed_gives_the_same_texts_again_and_its_choices_differ(client):
    fields = {"model": "org/m", "prompt": PROMPTS[0], "seed": 7, "n": 4, "max_tokens": 20}
    first, second = await asyncio.gather(*(client.completions.create(**fields) for _ in range(2)))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert len(set(texts)) == 4


async def test_logprobs_and_stops(client, library):
    text = library(PROMPTS[0], 40)[0]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    fields = {"model": "org/m", "prompt": PROMPTS[0], "temperature": 0, "max_tokens": 40}
    cut = (await client.completions.create(stop=[stop], **fields)).choices[0]
    assert (cut.text, cut.finish_reason) == (text[: text.index(stop)], "stop")
    told = (await client.completions.create(logprobs=5, **fields)).choices[0]
    assert len(told.logprobs.tokens) == len(told.logprobs.token_logprobs) == len(told.logprobs.text_offset) <= 40
    assert all(-100 < logprob <= 0 for logprob in told.logprobs.token_logprobs)
    for token, top in zip(told.logprobs.tokens, told.logprobs.top_logprobs, strict=True):
        assert top[token] == max(top.values())
