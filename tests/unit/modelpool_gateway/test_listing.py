"""What can be called by name, and what is said of it."""

from datetime import timedelta

import pytest

from modelpool_gateway.keys import ApiKeys
from modelpool_gateway.listing import state_of
from unit.modelpool_gateway.site import NOW, Site
from unit.modelpool_gateway.test_outlook import model, pause, worker

URL = "/v1/models"
LIMITED = "sk-team-b-0123456789"

STATES = [
    pytest.param([], [model()], "Cold", id="cold"),
    pytest.param([worker("Evicting")], [model()], "Cold", id="its-worker-goes"),
    pytest.param([], [model(off=True)], "Off", id="switched-off"),
    pytest.param([], [model(pause=pause(5))], "Failed", id="its-workers-failed"),
    pytest.param([], [model(pause=pause(-5))], "Cold", id="a-pause-that-is-over"),
    pytest.param([], [model(pause=pause(None)), model("other")], "Cold", id="one-of-two-failed"),
    pytest.param([worker("Spawning")], [model(pause=pause(5))], "Spawning", id="a-worker-is-made-again"),
    pytest.param([worker("Loading"), worker("Processing", uid="v")], [], "Processing", id="the-best-of-its-workers"),
    pytest.param([worker("Ready", leaving=True)], [], "Evicting", id="told-to-stop"),
    pytest.param([worker("Failed"), worker("Dead", uid="v")], [], "Failed", id="a-worker-of-its-own-failed"),
    pytest.param([worker("Dead")], [], "Dead", id="a-worker-of-its-own-is-gone"),
]


@pytest.mark.parametrize(("workers", "models", "state"), STATES)
def test_a_models_state_is_one_word(workers, models, state):
    assert state_of(workers, models, NOW + timedelta()) == state


async def test_models_are_listed_cold_ones_too(client, url, gateway, one):
    gateway.declare()
    async with client.get(url + URL) as got:
        assert await got.json() == {
            "object": "list",
            "data": [
                {
                    "id": "m",
                    "object": "model",
                    "created": 1767225600,
                    "owned_by": "modelpool",
                    "capability": "text-embedding",
                    "state": "Ready",
                }
            ],
        }


async def test_a_worker_without_a_model_is_listed_too(client, url, one):
    async with client.get(f"{url}{URL}/m") as got:
        assert (got.status, (await got.json())["state"]) == (200, "Ready")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"{URL}/other", 404, "model_not_found"),
        ("GET", f"{URL}/org/other", 404, "model_not_found"),
        ("GET", f"{URL}s", 404, "unknown_path"),
        ("GET", f"{URL}/", 404, "unknown_path"),
        ("POST", URL, 405, "method_not_allowed"),
        ("DELETE", f"{URL}/m", 405, "method_not_allowed"),
    ],
)
async def test_what_else_is_asked_there_is_refused(client, url, one, method, path, status, code):
    async with client.request(method, url + path) as got:
        assert (got.status, (await got.json())["error"]["code"]) == (status, code)


async def test_a_key_sees_the_models_that_it_is_for(client, tmp_path):
    (tmp_path / "b").write_text(f'{{"key": "{LIMITED}", "models": ["llama-*"]}}')
    gateway = Site(keys=ApiKeys(tmp_path))
    gateway.declare()
    bearer = {"Authorization": f"Bearer {LIMITED}"}
    async with gateway.serving() as url:
        async with client.get(url + URL) as got:
            assert got.status == 401
        async with client.get(url + URL, headers=bearer) as got:
            assert (await got.json())["data"] == []
        async with client.get(f"{url}{URL}/m", headers=bearer) as got:
            assert got.status == 403
