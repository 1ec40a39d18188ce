"""Downloading from a hub, against a small one on loopback that is slow, broken, busy, forbidding or gone."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import repositories
from e2e.hub import Hub as SmallHub
from modelpool_worker.errors import NeverLoadsError, RetryLoadError
from modelpool_worker.models import hub as hubs
from modelpool_worker.models.hub import Hub, Listed, check_listing, check_room, clear_leftovers, download, hub_error

SOURCE = "hf://org/name"
GIB = 1024**3
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def elsewhere() -> Iterator[SmallHub]:
    """Another server, as the ones that large files of a hub really come from."""
    with SmallHub("127.0.0.2") as running:
        yield running


@pytest.fixture
def small(elsewhere: SmallHub) -> Iterator[SmallHub]:
    with SmallHub("127.0.0.1", other=elsewhere.url) as running:
        yield running


def ask(
    small: SmallHub | str, name: str, cache: Path, *, revision: str | None = None, token: str | None = None
) -> Path:
    endpoint = small if isinstance(small, str) else small.url
    hub = Hub(endpoint, token, waits=(0.0, 0.0))
    return download(hub, f"org/{name}", revision=revision, source=SOURCE, cache_dir=cache)


def fetched(small: SmallHub) -> list[str]:
    """The files whose content was asked for."""
    return [each.rpartition("/")[2] for each in small.served if each.startswith("GET") and "/resolve/" in each]


def weights_of(folder: Path) -> bytes:
    return (folder / repositories.WEIGHTS).read_bytes()


def real_weights() -> bytes:
    return repositories.real_model()[repositories.WEIGHTS]


# What is fetched


def test_a_whole_model_arrives(small, tmp_path):
    folder = ask(small, "whole", tmp_path)
    assert weights_of(folder) == real_weights()
    assert (folder / "1_Pooling" / "config.json").is_file()


def test_a_revision_is_the_one_that_was_asked_for(small, tmp_path):
    assert (ask(small, "whole", tmp_path, revision="v1") / "OLD.txt").read_bytes() == b"old"
    assert not (ask(small, "whole", tmp_path) / "OLD.txt").exists()


def test_two_revisions_share_their_files(small, tmp_path):
    ask(small, "whole", tmp_path)
    before = len(fetched(small))
    ask(small, "whole", tmp_path, revision="v1")
    assert repositories.WEIGHTS not in fetched(small)[before:]


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        pytest.param("config.json model.safetensors", "config.json model.safetensors", id="plain"),
        pytest.param(
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
            id="shards",
        ),
        pytest.param(
            "model.safetensors pytorch_model.bin tf_model.h5 flax_model.msgpack onnx/model.onnx onnx/config.json "
            "openvino/config.json original/params.json consolidated.safetensors README.md .gitattributes",
            "model.safetensors",
            id="the same weights in other forms",
        ),
        pytest.param(
            "model.safetensors chat_template.jinja merges.txt vocab.json spiece.model",
            "model.safetensors chat_template.jinja merges.txt vocab.json spiece.model",
            id="tokenizers",
        ),
        pytest.param(
            "model_index.json v1-5-pruned.safetensors unet/diffusion_pytorch_model.safetensors "
            "unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.safetensors "
            "unet/config.json text_encoder/model.safetensors text_encoder/model.fp16-00001-of-00002.safetensors "
            "text_encoder/model.safetensors.index.fp16.json tokenizer/merges.txt unet/diffusion_pytorch_model.bin",
            "model_index.json unet/diffusion_pytorch_model.safetensors unet/config.json "
            "text_encoder/model.safetensors tokenizer/merges.txt",
            id="pipeline",
        ),
    ],
)
def test_only_what_the_libraries_read_is_fetched(listed, wanted):
    files = check_listing((Listed(name, 1) for name in listed.split()), SOURCE)
    assert [file.path for file in files] == wanted.split()


# What is in the cache


def test_what_is_in_the_cache_is_not_fetched_again(small, tmp_path):
    folder = ask(small, "whole", tmp_path)
    before = len(small.served)
    assert ask(small, "whole", tmp_path) == folder
    assert small.served[before:] == ["GET /api/models/org/whole/revision/main"]


def test_a_pinned_model_in_the_cache_needs_no_hub(small, tmp_path):
    commit = repositories.standard("whole").commit
    folder = ask(small, "whole", tmp_path, revision=commit)
    before = len(small.served)
    assert ask(small, "whole", tmp_path, revision=commit) == folder
    assert ask(NOBODY, "whole", tmp_path, revision=commit) == folder
    assert small.served[before:] == []


@pytest.mark.parametrize("revision", [None, "v1"])
def test_while_the_hub_is_out_of_reach_the_cache_serves(small, tmp_path, revision):
    folder = ask(small, "whole", tmp_path, revision=revision)
    assert ask(NOBODY, "whole", tmp_path, revision=revision) == folder


def test_half_a_model_in_the_cache_is_completed(small, tmp_path):
    folder = ask(small, "whole", tmp_path)
    (folder / repositories.WEIGHTS).unlink()
    (folder / "config.json").unlink()
    assert weights_of(ask(small, "whole", tmp_path)) == real_weights()
    assert (folder / "config.json").is_file()


def test_a_private_model_in_a_shared_cache_is_not_for_those_without_a_token(small, tmp_path):
    ask(small, "private", tmp_path, token=repositories.TOKEN)
    with pytest.raises(NeverLoadsError, match="HTTP 401"):
        ask(small, "private", tmp_path)


# A hub in trouble


def test_slow_weights_arrive(small, tmp_path):
    assert weights_of(ask(small, "paced-2s", tmp_path)) == real_weights()


def test_a_download_that_is_cut_goes_on_where_it_was(small, tmp_path):
    assert weights_of(ask(small, "interrupted", tmp_path)) == real_weights()
    assert fetched(small).count(repositories.WEIGHTS) == 2


@pytest.mark.parametrize("name", ["busy", "limited"])
def test_a_hub_that_is_busy_for_a_moment_is_asked_again(small, tmp_path, name):
    assert weights_of(ask(small, name, tmp_path)) == real_weights()


@pytest.mark.parametrize(
    ("name", "revision", "token", "kind", "words"),
    [
        pytest.param("nothing", None, None, NeverLoadsError, "name or revision is wrong", id="missing"),
        pytest.param("whole", "v9", None, NeverLoadsError, "name or revision is wrong", id="wrong revision"),
        pytest.param("whole", "0" * 40, None, NeverLoadsError, "name or revision is wrong", id="wrong commit"),
        pytest.param("private", None, None, NeverLoadsError, "needs tokenSecretRef", id="private"),
        pytest.param("private", None, "hf_other", NeverLoadsError, "token in tokenSecretRef may not", id="wrong token"),
        pytest.param("forbidden", None, None, NeverLoadsError, "gated or private; set tokenSecretRef", id="gated"),
        pytest.param("forbidden", None, "t", NeverLoadsError, "accept its terms", id="gated for this token"),
        pytest.param("pickled", None, None, NeverLoadsError, "pytorch_model.bin", id="pickle only"),
        pytest.param("climbing", None, None, NeverLoadsError, "outside of its own folder", id="climbing names"),
        pytest.param("endless", None, None, NeverLoadsError, "more than 10000 files", id="endless listing"),
        pytest.param("enormous", None, None, NeverLoadsError, "larger than the whole cache", id="enormous"),
        pytest.param("failing", None, None, RetryLoadError, "HTTP 500", id="failing"),
        pytest.param("garbage", None, None, RetryLoadError, "no answer that could be understood", id="garbage"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_is_fetched(small, tmp_path, name, revision, token, kind, words):
    with pytest.raises((NeverLoadsError, RetryLoadError)) as raised:
        ask(small, name, tmp_path / "cache", revision=revision, token=token)
    assert type(raised.value) is kind
    assert words in str(raised.value)
    assert SOURCE in str(raised.value)
    assert fetched(small) == []
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


def test_a_hub_out_of_reach_is_worth_another_try(tmp_path):
    with pytest.raises(RetryLoadError, match="could not be reached"):
        ask(NOBODY, "whole", tmp_path)


def test_a_name_that_is_none_never_loads(tmp_path):
    with pytest.raises(NeverLoadsError, match="is no name of a model"):
        ask(NOBODY, "..", tmp_path)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, NeverLoadsError, "tokenSecretRef"),
        (403, NeverLoadsError, "forbids"),
        (404, NeverLoadsError, "name or revision"),
        (400, NeverLoadsError, "refused"),
        (429, RetryLoadError, "HTTP 429"),
        (500, RetryLoadError, "HTTP 500"),
        (503, RetryLoadError, "HTTP 503"),
        (None, RetryLoadError, "no answer"),
    ],
)
def test_only_the_hubs_own_trouble_is_worth_another_try(status, kind, words):
    error = hub_error("hf://org/m", status, has_token=False)
    assert type(error) is kind
    assert words in str(error)
    assert "hf://org/m" in str(error)


# The token


def test_the_token_goes_to_the_hub_and_nowhere_else(small, elsewhere, tmp_path, caplog):
    """Large files lie on other servers, to which the hub leads by a redirect; nothing of it is logged either."""
    with caplog.at_level(logging.DEBUG):
        folder = ask(small, "elsewhere", tmp_path, token=repositories.TOKEN)
    assert weights_of(folder) == real_weights()
    assert repositories.WEIGHTS in fetched(elsewhere)
    assert small.tokens == {repositories.TOKEN}
    assert elsewhere.tokens == set()
    assert caplog.records
    assert repositories.TOKEN not in caplog.text


def test_without_a_token_none_of_the_environment_is_sent(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", repositories.TOKEN)
    ask(small, "whole", tmp_path)
    assert small.tokens == set()


# Switched off


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("hf://org/whole", "asked"),
        ("file:///models/m", "OfflineModeIsEnabled"),
        ("pvc://claim", "OfflineModeIsEnabled"),
        ("oci://image", "OfflineModeIsEnabled"),
    ],
)
def test_only_an_hf_source_may_reach_the_hub(small, tmp_path, source, answer):
    """In a process that was prepared for another one the hub's library makes no connection, whoever calls it."""
    script = (
        "import sys\n"
        "from modelpool_worker.__main__ import prepare_environment\n"
        "from modelpool_worker.settings import WorkerSettings\n"
        "prepare_environment(WorkerSettings(worker_id='w', model_name='m', capability='c', model_source=sys.argv[1],"
        " cache_dir=sys.argv[2]))\n"
        "from huggingface_hub import HfApi\n"
        "try: HfApi(endpoint=sys.argv[3]).model_info('org/whole', revision='main'); print('asked')\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    arguments = [sys.executable, "-c", script, source, str(tmp_path), small.url]
    said = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == answer
    assert bool(small.served) == (answer == "asked")


# Room


@pytest.mark.parametrize(
    ("needed", "free", "total", "kind", "words"),
    [
        pytest.param(3 * GIB, 2 * GIB, 4 * GIB, RetryLoadError, "needs 3072 MiB more", id="others fill it"),
        pytest.param(5 * GIB, 4 * GIB, 4 * GIB, NeverLoadsError, "the volume has 4096 MiB", id="never"),
        pytest.param(1, 0, 4 * GIB, RetryLoadError, "needs 1 MiB more", id="full"),
    ],
)
def test_a_model_without_room_is_not_begun(needed, free, total, kind, words):
    with pytest.raises(kind, match=words):
        check_room(needed, free, total, SOURCE)


def test_a_model_that_just_fits_is_begun():
    check_room(GIB, GIB, GIB, SOURCE)


def test_a_disk_that_fills_up_on_the_way_is_worth_another_try(small, tmp_path):
    """Writing fails in a process that may write no file of more than a megabyte; it says so in a sentence of ours."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from modelpool_worker.models.hub import Hub, download\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try: download(Hub(sys.argv[1], None), 'org/whole', revision=None, source='S', cache_dir=Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, small.url, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.startswith("RetryLoadError S could not be stored in the cache")
    assert list(tmp_path.rglob("*.incomplete")) == []


def test_what_a_killed_download_left_goes_and_what_another_one_writes_stays(tmp_path):
    old, new = tmp_path / "a.1.incomplete", tmp_path / "b.2.incomplete"
    for path in (old, new):
        path.write_bytes(b"x")
    past = new.stat().st_mtime - hubs._LEFT_SECONDS - 60
    os.utime(old, (past, past))
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
