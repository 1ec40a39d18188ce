"""Tiny vision-language models against the library's own chat template, processor and ``generate``."""

import gc
import shutil
import weakref
from functools import cache
from io import BytesIO

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.vision import Vision
from modelpool_worker.errors import InvalidRequestError, QueueFullError
from modelpool_worker.generation.request import Message, Sampling, TextRequest
from modelpool_worker.generation.vision_prompts import VisionPrompts, VisionReader
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.imaging.pixel_budget import PixelBudget
from tiny_models import vision_language

pytestmark = pytest.mark.models

TOGETHER = ["idefics3", "smolvlm", "llava"]
KINDS = [*TOGETHER, "qwen2_5_vl"]
TOKENS = 24
GREEDY = Sampling(temperature=0, max_tokens=TOKENS)


def picture(colour, size=(48, 36), kind="png"):
    """The bytes of an image of a colour with an ellipse of another one."""
    image = Image.new("RGB", size, colour)
    ImageDraw.Draw(image).ellipse((5, 5, 25, 20), fill=(255 - colour[0], 90, colour[2]))
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


RED, BLUE, WIDE = picture((200, 10, 10)), picture((10, 10, 200)), picture((10, 200, 10), (90, 30), "webp")
LARGE = [picture((1, 2, 3), size) for size in ((4097, 4096), (4096, 4096))]
CHATS = {
    "one image": (Message("user", (RED, "what is this?")),),
    "another image": (Message("user", (BLUE, "what is this?")),),
    "two images": (Message("user", ("the first ", RED, " and the second ", WIDE, " please")),),
    "a whole chat": (
        Message("system", ("answer shortly",)),
        Message("user", (BLUE, "what colour is it?")),
        Message("assistant", ("blue",)),
        Message("user", ("and this one?", RED)),
    ),
    "text only": (Message("user", ("hello, what is late in the morning?",)),),
    "an address as text": (
        Message("user", ("https://example.com/a.png and /etc/hostname and data:image/png;base64,AA",)),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a kind's folder, built once."""

    @cache
    def built(kind):
        path = tmp_path_factory.mktemp(kind)
        vision_language.build(path, kind)
        return path

    return built


@pytest.fixture(scope="module")
def load(folder):
    """Return our model of a kind, and the library's model and processor of the same folder."""
    made = []

    @cache
    def loaded(kind):
        ours = Vision()
        told = ours.load(request(folder(kind)))
        ours.warm_up()
        made.append(ours)
        assert (told.device, told.dtype, told.context_tokens) == ("cpu", "float32", 1024)
        assert told.max_items == (None if kind in TOGETHER else 1)
        model = AutoModelForImageTextToText.from_pretrained(
            str(folder(kind)), dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        return ours, model.eval(), AutoProcessor.from_pretrained(str(folder(kind)), local_files_only=True)

    yield loaded
    for ours in made:
        ours.unload()


def request(path, **changes):
    fields = {"folder": path, "source": "file:///m", "dtype": "float32", "gpus": 0, "threads": 1}
    return LoadRequest(**fields | changes)


def write(model, requests, joined_at=None):
    """Take turns until every request is answered; request i joins at turn ``joined_at[i]`` (default: all at once)."""
    rows = dict(enumerate(each.value for each in model.prepare(requests)))
    joined_at = joined_at or [0] * len(rows)
    texts, left, turn = [""] * len(rows), set(rows), 0
    while left:
        for piece in model.turn({key: rows[key] for key in rows if joined_at[key] == turn}, ()):
            assert piece.error is None
            texts[piece.key] += piece.value.text
            if piece.last:
                left.remove(piece.key)
        turn += 1
    return texts


def generate(model, processor, messages):
    """The library's own answer: its chat template, its processor, its generate."""
    chat = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": Image.open(BytesIO(part)).convert("RGB")}
                for part in message.parts
            ],
        }
        for message in messages
    ]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    new = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return new.tolist(), processor.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_equals_the_library_s_alone_together_and_staggered(load, kind):
    ours, model, processor = load(kind)
    expected = {name: generate(model, processor, messages) for name, messages in CHATS.items()}
    texts = [text for _tokens, text in expected.values()]
    assert len(set(texts)) == len(texts), "what is asked and shown must matter, images included"
    assert all(len(set(tokens)) >= 8 for tokens, _text in expected.values()), "repetition would prove nothing"
    requests = [TextRequest(GREEDY, messages) for messages in CHATS.values()]
    assert [write(ours, [each])[0] for each in requests] == texts
    assert write(ours, requests) == texts
    assert write(ours, requests, joined_at=[0, 3, 3, 5, 1, 9]) == texts


@pytest.mark.parametrize("kind", ["idefics3", "qwen2_5_vl"])
def test_the_order_of_images_matters(load, kind):
    ours = load(kind)[0]
    orders = [(RED, BLUE), (BLUE, RED), (RED, RED)]
    requests = [TextRequest(GREEDY, (Message("user", (*images, "which is red?")),)) for images in orders]
    assert len(set(write(ours, requests))) == len(orders)


def test_choices_share_what_was_made_of_their_messages_and_are_counted_once(load):
    ours = load("idefics3")[0]
    drawn = Sampling(temperature=1.0, max_tokens=TOKENS, seed=3)
    requests = [TextRequest(drawn, CHATS["one image"], choice=choice) for choice in range(3)]
    prepared = ours.prepare(requests)
    assert [each.tokens for each in prepared] == [len(prepared[0].value.ids), 0, 0]
    assert [each.cost for each in prepared] == [len(prepared[0].value.ids) + TOKENS] * 3
    assert all(each.value.extra is prepared[0].value.extra for each in prepared)
    texts = write(ours, requests)
    assert len(set(texts)) == 3
    assert [write(ours, [each])[0] for each in requests] == texts, "a seed gives its text alone as well"


def user(*parts):
    return TextRequest(GREEDY, (Message("user", parts),))


WRONG = {
    "a special token": (user(RED, "say <|im_end|> now"), "special tokens"),
    "an image's placeholder": (user(RED, "and <image>?"), "special tokens"),
    "a placeholder in two parts": (user(RED, "and <ima", "ge>?"), "special tokens"),
    "a placeholder said by the assistant": (
        TextRequest(GREEDY, (Message("assistant", ("<image>",)), Message("user", ("go on",)))),
        "special tokens",
    ),
    "no image": (user(b"GIF89a" + bytes(40), "what?"), "PNG"),
    "half an image": (user(RED[: len(RED) // 2], "what?"), "image"),
    "too large an image": (user(LARGE[0], "what?"), "pixels"),
    "too large images together": (user(*[LARGE[1]] * 3, "what?"), "pixels together"),
    "too long a text": (user("word " * 5000), "1024"),
    "too many images": (user(*[RED] * 200), "1024"),
    "too long an answer": (TextRequest(Sampling(max_tokens=1020), CHATS["one image"]), "max_tokens"),
    "no messages": (TextRequest(GREEDY, prompt="hello"), "messages"),
}


@pytest.mark.parametrize(("wrong", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_a_sentence_and_the_next_request_is_served(load, wrong, sentence):
    ours, model, processor = load("idefics3")
    with pytest.raises(InvalidRequestError, match=sentence) as refused:
        ours.prepare([wrong])
    assert refused.value.param == "messages"
    assert write(ours, [user(RED, "what is this?")]) == [generate(model, processor, CHATS["one image"])[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_sizes_are_served(load, kind):
    """Sizes that the decoder lets pass and processors could choke on: a pixel, a line, more than the model's side."""
    ours, model, processor = load(kind)
    chats = [(Message("user", (picture((90, 9, 9), size), "?")),) for size in ((1, 1), (1, 32), (64, 2), (700, 300))]
    expected = [generate(model, processor, messages)[1] for messages in chats]
    assert write(ours, [TextRequest(GREEDY, messages) for messages in chats]) == expected


def test_images_where_the_template_has_no_place_for_them_are_the_client_s_error(folder, tmp_path):
    path = shutil.copytree(folder("llava"), tmp_path / "m")
    template = path / "chat_template.jinja"
    image = "part['type'] == 'image'"
    template.write_text(template.read_text().replace(image, f"{image} and message['role'] == 'user'"))
    ours = Vision()
    ours.load(request(path))
    with pytest.raises(InvalidRequestError, match="expected images in user messages only") as refused:
        ours.prepare([TextRequest(GREEDY, (Message("assistant", (RED,)), Message("user", ("and?",))))])
    assert refused.value.param == "messages"
    assert len(write(ours, [TextRequest(GREEDY, CHATS["one image"])])[0]) > 0
    ours.unload()


def test_images_that_find_no_room_get_a_429_and_texts_none(load):
    processor = load("idefics3")[2]
    reader = VisionReader(processor, Vocabulary(processor.tokenizer.backend_tokenizer), torch.float32, "m")
    prompts = VisionPrompts(reader, 1024, PixelBudget(1))
    held = prompts.prepare([user(RED, BLUE, RED, "all of one chat have room together")])
    with pytest.raises(QueueFullError):
        prompts.prepare([user(BLUE, "?")])
    assert prompts.prepare([user("hello")])[0].tokens > 0
    del held
    gc.collect()
    assert prompts.prepare([user(BLUE, "?")])[0].tokens > 0
    prompts.close()


@pytest.mark.parametrize("kind", KINDS)
def test_images_hold_no_room_any_more_once_the_first_token_is_there(load, kind):
    ours = load(kind)[0]
    joins = {1: ours.prepare([user(RED, "what is this?")])[0].value}
    pixels = weakref.ref(joins[1].extra["pixel_values"])
    (piece,) = ours.turn(joins, ())
    assert not piece.last
    joins.clear()
    gc.collect()
    assert pixels() is None
    if kind not in TOGETHER:
        # nor what the library made of them, which no further token looks at
        assert not set(ours._engine.rows._run._text._state) & set(MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL)
    ours.turn({}, [1])


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_half_precision_writes_texts_that_depend_on_the_image(folder, kind):
    ours = Vision()
    assert ours.load(request(folder(kind), dtype="bfloat16")).dtype == "bfloat16"
    ours.warm_up()
    (shown,) = ours.prepare([user(RED, "what?")])
    assert shown.value.extra["pixel_values"].dtype == torch.bfloat16
    red, blue = write(ours, [user(RED, "what?"), user(BLUE, "what?")])
    assert red != blue
    ours.unload()
