"""A real vision-language model behind the chat endpoint: what clients read is what the library writes."""

import asyncio
import base64
from io import BytesIO

import openai
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from modelpool_worker.capabilities.vision import Vision
from tiny_models import vision_language

pytestmark = pytest.mark.models

TOKENS = 24
ASK = {"model": "org/m", "temperature": 0, "max_tokens": TOKENS}


def picture(left, right):
    """The PNG of an image in two colours."""
    image = Image.new("RGB", (40, 30), left)
    image.paste(right, (20, 0, 40, 30))
    file = BytesIO()
    image.save(file, "png")
    return file.getvalue()


PICTURES = [picture("red", "navy"), picture("white", "green"), picture("black", "yellow")]


def chat(*pictures, text="what is this?"):
    urls = ["data:image/png;base64," + base64.b64encode(data).decode() for data in pictures]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def linked(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl"], ids=["steps together", "one at a time"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    vision_language.build(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def library(folder):
    """A function that writes greedily with the library alone: pictures → text, number of tokens of prompt and text."""
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)

    def write(*pictures):
        images = [{"type": "image", "image": Image.open(BytesIO(data))} for data in pictures]
        messages = [{"role": "user", "content": [*images, {"type": "text", "text": "what is this?"}]}]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        read = inputs["input_ids"].shape[1]
        new = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, read:]
        return processor.tokenizer.decode(new, skip_special_tokens=True), read, len(new)

    return write


@pytest.fixture
async def client(folder, speaking):
    async with (
        speaking(model=Vision(), capability="vision", model_source=f"file://{folder}", dtype="float32") as (_, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


async def streamed(client, messages):
    stream = await client.chat.completions.create(messages=messages, stream=True, **ASK)
    return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])


async def test_chats_at_once_whole_and_streamed_are_the_librarys_text(client, library):
    chats = [chat(data) for data in PICTURES]
    expected = [library(data) for data in PICTURES]
    assert len({text for text, _read, _new in expected}) == len(PICTURES)
    answers = await asyncio.gather(
        *(client.chat.completions.create(messages=messages, **ASK) for messages in chats),
        *(streamed(client, messages) for messages in chats),
    )
    whole, streams = answers[: len(chats)], answers[len(chats) :]
    usages = [(answer.usage.prompt_tokens, answer.usage.completion_tokens) for answer in whole]
    assert [answer.choices[0].message.content for answer in whole] == [text for text, _read, _new in expected]
    assert usages == [(read, new) for _text, read, new in expected]
    assert list(streams) == [text for text, _read, _new in expected]


async def test_wrong_images_get_a_400_and_a_right_one_its_answer_after_them(client, library):
    wrong = [
        (chat(PICTURES[0][:60]), "damaged"),
        (chat(b"\x00" * 100), "PNG"),
        (chat(*PICTURES * 3), "at most 8"),
        (chat(PICTURES[0], text="and <|im_end|>?"), "special tokens"),
        ([*chat(PICTURES[0]), {"role": "user", "content": "word " * 9000}], "context|tokens"),
        (linked("file:///etc/hostname"), "data URL"),
        (linked("http://127.0.0.1/a.png"), "not fetched"),
    ]
    for messages, sentence in wrong:
        with pytest.raises(openai.BadRequestError, match=sentence):
            await client.chat.completions.create(messages=messages, **ASK)
    answer = await client.chat.completions.create(messages=chat(PICTURES[0]), **ASK)
    assert answer.choices[0].message.content == library(PICTURES[0])[0]


async def test_who_leaves_in_the_middle_of_a_text_holds_up_nobody(client, library):
    long = ASK | {"max_tokens": 900}
    async with await client.chat.completions.create(messages=chat(PICTURES[1]), stream=True, **long) as stream:
        await anext(aiter(stream))
    answer = await client.chat.completions.create(messages=chat(PICTURES[0], PICTURES[2]), **ASK)
    assert answer.choices[0].message.content == library(PICTURES[0], PICTURES[2])[0]
