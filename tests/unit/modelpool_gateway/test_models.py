"""Models as the gateway knows them."""

from modelpool_gateway.models import Models

FIELDS = {"name": "minilm", "capability": "text-embedding"}


def model(name="m", *, version=1, served="minilm", status=None, generation=1, **spec):
    return {
        "metadata": {
            "uid": f"uid-{name}",
            "namespace": "team-a",
            "name": name,
            "resourceVersion": str(version),
            "generation": generation,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {"worker": {"model": {**FIELDS, "name": served}}, **spec},
        "status": status or {},
    }


def test_models_are_found_by_the_name_that_requests_use():
    models = Models()
    assert models.observe(model("b")) == {("team-a", "minilm")}
    models.observe(model("a"))
    assert [each.name for each in models.of("team-a", "minilm")] == ["a", "b"]
    assert models.of("team-b", "minilm") == []


def test_a_model_that_changes_its_name_concerns_both():
    models = Models()
    models.observe(model())
    assert models.observe(model(version=2, served="other")) == {("team-a", "minilm"), ("team-a", "other")}
    assert models.of("team-a", "minilm") == []


def test_an_older_view_changes_nothing_and_a_list_drops_what_is_gone():
    models = Models()
    models.observe(model(version=5, maxReplicas=0))
    models.observe(model(version=4))
    assert models.of("team-a", "minilm")[0].off
    models.observe(model("gone", served="other"))
    assert models.replace([model(version=5)]) == {("team-a", "minilm"), ("team-a", "other")}
    assert [each.name for each in models] == ["m"]


def test_a_pause_counts_for_the_spec_that_it_was_found_out_of():
    told = {"observedGeneration": 1, "backOff": {"reason": "OOMKilled", "retryTime": "2026-01-02T03:05:05Z"}}
    models = Models()
    models.observe(model(status=told))
    assert models.of("team-a", "minilm")[0].pause.reason == "OOMKilled"
    models.observe(model(version=2, generation=2, status=told))
    assert models.of("team-a", "minilm")[0].pause is None
