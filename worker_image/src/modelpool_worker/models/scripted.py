"""Functions of many operations on tensors as one operation, which torch runs without the interpreter.

A thread that calls torch needs the interpreter's lock between two operations, and waits for it while another thread
answers requests; the threads that share out an operation fall asleep meanwhile.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

_F = TypeVar("_F", bound=Callable[..., object])


def scripted(function: _F) -> _F:
    """Return ``function`` as one operation, or as it is where TorchScript does not know what it needs on this CPU.

    TorchScript is not developed any further. It reads the function's source and what that calls: no generators, and
    types that it knows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            one: _F = torch.jit.script(function)
        except (AttributeError, RuntimeError, OSError):  # the last one: the source is not at hand
            return function
    return one
