"""What was last seen of each object: older views change nothing."""

import pytest

from modelpool_operator.runtime.cache import ObjectCache

KEY = ("team-a", "w")


def seen(version: int | str, uid: str = "u", name: str = "w") -> dict:
    return {"metadata": {"namespace": "team-a", "name": name, "uid": uid, "resourceVersion": str(version)}}


@pytest.fixture
def cache() -> ObjectCache[str]:
    return ObjectCache(lambda obj: obj["metadata"]["resourceVersion"])


@pytest.mark.parametrize(
    ("second", "news", "held"),
    [
        pytest.param(seen(11), True, "11", id="newer"),
        pytest.param(seen(10), False, "10", id="same"),
        pytest.param(seen(9), False, "10", id="older"),
        pytest.param(seen(9, uid="v"), True, "9", id="another-incarnation"),
        pytest.param(seen("opaque"), True, "opaque", id="version-is-no-number"),
    ],
)
def test_observe(cache, second, news, held):
    cache.observe(seen(10))
    assert cache.observe(second) is news
    assert cache.get(KEY) == held


def test_an_object_of_the_same_name_and_another_uid_is_not_forgotten(cache):
    cache.observe(seen(10))
    assert cache.forget(KEY, "another") is False
    assert cache.get(KEY) == "10"
    assert cache.forget(KEY, "u") is True
    assert cache.get(KEY) is None


def taken(listing, objects):
    """The keys that changed by a list of one page."""
    listing.take("/all", objects, anew=True)
    return listing.end()


def test_a_list_that_breaks_off_tells_nobody_and_its_news_are_news_to_the_next(cache):
    cache.observe(seen(10))
    broken = cache.listing()
    broken.take("/all", [seen(11)], anew=True)
    assert cache.get(KEY) == "11"
    assert taken(cache.listing(), [seen(11)]) == {KEY}
    assert taken(cache.listing(), [seen(11)]) == set()


def test_a_list_that_expires_and_begins_anew_forgets_what_only_its_first_pages_had(cache):
    for name in ("kept", "gone"):
        cache.observe(seen(10, uid=name, name=name))
    listing = cache.listing()
    listing.take("/a", [seen(10, uid="gone", name="gone")], anew=True)
    listing.take("/a", [seen(10, uid="kept", name="kept")], anew=True)
    assert {name for _, name in listing.end()} == {"gone"}


def test_a_list_of_several_paths_and_pages_is_the_sum_of_them(cache):
    for name in ("a", "b", "c"):
        cache.observe(seen(10, uid=name, name=name))
    listing = cache.listing()
    listing.take("/x", [seen(10, uid="a", name="a")], anew=True)
    listing.take("/x", [seen(10, uid="b", name="b")])
    listing.take("/y", [seen(10, uid="c", name="c")], anew=True)
    assert listing.end() == set()
    assert len(cache.keys()) == 3


def test_a_list_drops_what_it_misses_and_reports_what_changed(cache):
    for name in ("kept", "changed", "gone"):
        cache.observe(seen(10, uid=name, name=name))
    listed = [seen(10, uid="kept", name="kept"), seen(12, uid="changed", name="changed"), seen(13, uid="n", name="new")]
    changed = taken(cache.listing(), listed)
    assert {name for _, name in changed} == {"changed", "gone", "new"}
    known = cache.keys()
    assert {name for _, name in known} == {"kept", "changed", "new"}
    assert cache.complete


def test_what_was_seen_after_the_list_began_is_not_dropped_by_it(cache):
    listing = cache.listing()
    cache.observe(seen(20))
    assert taken(listing, []) == set()
    assert cache.get(KEY) == "20"


def test_a_list_that_is_older_than_what_was_seen_since_changes_nothing(cache):
    cache.observe(seen(10))
    listing = cache.listing()
    cache.observe(seen(30))
    assert taken(listing, [seen(10)]) == set()
    assert cache.get(KEY) == "30"


def test_a_cache_is_complete_only_after_a_list(cache):
    cache.observe(seen(10))
    assert not cache.complete


def test_what_somebody_else_read_is_held_and_stays_news_for_the_watch(cache):
    """Otherwise the one who is responsible would never hear of it."""
    cache.observe(seen(10))

    cache.observe(seen(11), tell=False)

    assert cache.get(KEY) == "11"
    assert cache.observe(seen(11)) is True
    assert cache.observe(seen(11)) is False


def test_an_object_that_cannot_be_read_keeps_nobody_from_the_others():
    def parse(obj):
        if obj["metadata"]["name"] == "bad":
            raise ValueError("expected a time")
        return obj["metadata"]["name"]

    cache = ObjectCache(parse)

    changed = taken(cache.listing(), [seen(1, name="bad"), seen(2, name="good")])

    assert changed == {("team-a", "good")}
    assert cache.complete


def in_pool(version: int, pool: str, name: str = "w", uid: str = "u") -> dict:
    return {**seen(version, uid, name), "pool": pool}


@pytest.fixture
def grouped() -> ObjectCache[dict]:
    return ObjectCache(dict, lambda obj: (("team-a", obj["pool"]),))


def test_objects_are_found_by_their_group_and_leave_it_with_their_end(grouped):
    grouped.observe(in_pool(1, "a", "first"))
    grouped.observe(in_pool(2, "a", "second"))
    grouped.observe(in_pool(3, "b", "third"))
    assert [each["metadata"]["name"] for each in grouped.in_group(("team-a", "a"))] == ["first", "second"]
    grouped.forget(("team-a", "first"))
    assert [each["metadata"]["name"] for each in grouped.in_group(("team-a", "a"))] == ["second"]
    assert grouped.in_group(("team-a", "none")) == []


def test_an_object_made_again_in_another_group_is_in_that_one_alone(grouped):
    grouped.observe(in_pool(1, "a"))
    grouped.observe(in_pool(2, "b", uid="v"))
    assert grouped.in_group(("team-a", "a")) == []
    assert [each["pool"] for each in grouped.in_group(("team-a", "b"))] == ["b"]


@pytest.mark.parametrize(
    ("asked", "parsed"),
    [
        pytest.param(seen(10), 1, id="held"),
        pytest.param(seen(9), 2, id="older-than-held"),
        pytest.param(seen(10, uid="v"), 2, id="another-incarnation"),
    ],
)
def test_what_is_held_in_the_very_version_is_not_parsed_again(asked, parsed):
    calls: list[str] = []
    cache = ObjectCache(lambda obj: calls.append(obj["metadata"]["uid"]) or obj["metadata"]["resourceVersion"])
    cache.observe(seen(10))
    assert cache.take(asked) == asked["metadata"]["resourceVersion"]
    assert len(calls) == parsed
