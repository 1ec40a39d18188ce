"""How much memory images that wait may take together."""

import gc

import pytest
import torch

from modelpool_worker.errors import InvalidRequestError, QueueFullError
from modelpool_worker.imaging.pixel_budget import PixelBudget, Share

pytestmark = pytest.mark.models


def test_images_that_wait_take_no_more_memory_than_their_budget():
    budget = PixelBudget(1000)
    first, second = torch.zeros(200), torch.zeros(50)  # 800 and 200 bytes
    budget.hold([first])
    budget.hold([second])
    with pytest.raises(QueueFullError):
        budget.hold([torch.zeros(1)])
    del second
    gc.collect()
    third = torch.zeros(50)
    budget.hold([third])
    with pytest.raises(QueueFullError):
        budget.hold([torch.zeros(1)])


def test_one_request_s_images_always_fit():
    budget = PixelBudget(10)
    held = torch.zeros(100)
    budget.hold([held])
    with pytest.raises(QueueFullError):
        budget.hold([torch.zeros(1)])
    del held
    gc.collect()
    budget.hold([torch.zeros(100)])


def test_what_takes_nothing_finds_room_always():
    budget = PixelBudget(1)
    held = torch.zeros(100)
    budget.hold([held])
    budget.hold([])


def test_images_of_one_request_never_wait_for_each_other_only_for_those_of_others():
    budget, own, other = PixelBudget(1000), Share("input"), Share("input")
    kept = [torch.zeros(100) for _ in range(3)]  # 400 bytes each
    budget.hold(kept[:1], own)
    budget.hold(kept[1:2], own)
    with pytest.raises(QueueFullError):
        budget.hold(kept[2:], other)
    del kept[:2]
    gc.collect()
    budget.hold(kept, other)


def test_a_request_that_is_too_large_by_itself_is_told_so_however_much_of_it_was_freed_meanwhile():
    """Not 429: it would come again for ever. Whether the model was quick does not matter."""
    budget, own = PixelBudget(1000), Share("input")
    for _ in range(2):
        budget.hold([torch.zeros(100)], own)
        gc.collect()
    with pytest.raises(InvalidRequestError, match="expected at most 2 like these in one request") as refused:
        budget.hold([torch.zeros(100)], own)
    assert (refused.value.status, refused.value.param) == (400, "input")
    budget.hold([torch.zeros(250)], Share("input"))


def test_the_first_image_of_a_request_fits_on_an_idle_worker_whatever_its_size():
    budget, own = PixelBudget(10), Share("input")
    held = torch.zeros(100)
    budget.hold([held], own)
    with pytest.raises(InvalidRequestError):
        budget.hold([torch.zeros(1)], own)
