"""What all capabilities of the registry have in common."""

import pytest
import torch

from modelpool_worker.capabilities import registry
from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.errors import RetryLoadError

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", registry.ENTRIES)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_promised_gpu_that_is_not_there_is_said_before_any_file_is_read(name, tmp_path):
    """Nothing is in the folder: whoever looked at it first would say something else, and that it never loads."""
    request = LoadRequest(folder=tmp_path / "none", source="file:///m", dtype="auto", gpus=1, threads=1)
    with pytest.raises(RetryLoadError, match=r"was promised 1 GPU\(s\) and torch finds none"):
        registry.create(name).load(request)
