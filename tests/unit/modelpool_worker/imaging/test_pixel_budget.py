"""How much memory images that wait may take together."""

import gc

import pytest
import torch

from modelpool_worker.errors import QueueFullError
from modelpool_worker.imaging.pixel_budget import PixelBudget

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
