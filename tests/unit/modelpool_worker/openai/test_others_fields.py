"""Fields that are meant for others than the worker, such as the gateway, stay in the request and do no harm."""

import pytest

from modelpool_worker.openai.chat import parse_chat
from modelpool_worker.openai.completions import parse_completion
from modelpool_worker.openai.embeddings import parse_request as parse_embeddings
from modelpool_worker.openai.image_embeddings import Expected
from modelpool_worker.openai.image_embeddings import parse_request as parse_image_embeddings
from modelpool_worker.openai.images import parse_request as parse_images

READERS = [
    pytest.param(
        lambda body: parse_chat(body, model_name="m", images=False),
        b'"messages":[{"role":"user","content":"x"}]',
        id="chat",
    ),
    pytest.param(lambda body: parse_completion(body, model_name="m"), b'"prompt":"x"', id="completion"),
    pytest.param(lambda body: parse_embeddings(body, model_name="m", vector_size=8), b'"input":"x"', id="embeddings"),
    pytest.param(
        lambda body: parse_image_embeddings(body, "", "", Expected("m", 8, 1000)), b'"input":"x"', id="image-embeddings"
    ),
    pytest.param(lambda body: parse_images(body, model_name="m", any_seed=1), b'"prompt":"x"', id="images"),
]


@pytest.mark.parametrize(("read", "fields"), READERS)
@pytest.mark.parametrize("keep_alive", [b"0", b"-1", b'"5m"'], ids=["let-go", "pinned", "text"])
def test_how_long_a_worker_shall_stay_is_not_the_workers_to_read(read, fields, keep_alive):
    plain = read(b'{"model":"m",%s}' % fields)
    assert repr(read(b'{"model":"m",%s,"keep_alive":%s}' % (fields, keep_alive))) == repr(plain)
