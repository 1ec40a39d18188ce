"""A machine with GPUs for tests, whatever this one has."""

import torch

GPU = torch.device("cuda:0")


class Gpus:
    """Answers as ``torch.cuda`` does. ``free`` and ``held`` are bytes by device."""

    def __init__(self, *, capability=(9, 0), free=None, held=None, available=True):
        self.available = available
        self.capability = capability
        self.free, self.held = free or {}, held or {}

    def is_available(self):
        return self.available

    def get_device_capability(self, device):
        assert device == GPU
        return self.capability

    def mem_get_info(self, device):
        return self.free[device], 80 * 2**30

    def memory_reserved(self, device):
        return self.held[device]
