"""Keys and values of the attention of many rows, each in a slot of its own. Imports torch and transformers."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

#: Room is made for this many columns more at least, so that it is not made for every token.
_SPARE_COLUMNS: Final = 64


class Layer(NamedTuple):
    """What one layer remembers: rows × heads × columns × size, each."""

    keys: Tensor
    values: Tensor


class SlotCache:
    """The cache of all rows that step together; token number p of a row lies in column p of its slot.

    Rows have the slots 0 to ``rows - 1``. Room is zero where nothing was written, grows by a quarter, never beyond what
    the rows can come to, and is given back once no row is left. ``view`` is what the model is given at a step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._layers: list[Layer] = []
        self._lengths: list[int] = []
        self._finals: list[int] = []
        self._slots = self._places = torch.zeros(0, dtype=torch.int64, device=device)
        self._columns = 0
        self.view = SlotView(self, 0)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._lengths)

    @property
    def layers(self) -> Sequence[Layer]:
        """What there is room for, a layer each: at least so many rows and columns as are looked at."""
        return self._layers

    @property
    def places(self) -> Tensor:
        """The column of each row's new token in this step [rows]."""
        return self._places

    @property
    def columns(self) -> int:
        """How many columns are looked at in this step."""
        return self._columns

    def add(self, prompt: Sequence[Layer], final: int) -> None:
        """Take in a row: what its prompt left, read alone (of one row); it will have ``final`` tokens at most.

        Where there is no memory for it the others stay as they were.
        """
        length = prompt[0].keys.shape[2]
        self._lengths.append(length)
        self._finals.append(max(final, length + 1))
        if not self._layers:
            self._layers = [Layer(_none_of(each.keys), _none_of(each.values)) for each in prompt]
            self.view = SlotView(self, len(prompt))
        try:
            self._make_room()
        except BaseException:
            del self._lengths[-1], self._finals[-1]
            if not self._lengths:
                self.clear()
            raise
        row = self.rows - 1
        for mine, theirs in zip(self._layers, prompt, strict=True):
            mine.keys[row, :, :length] = theirs.keys[0]
            mine.values[row, :, :length] = theirs.values[0]

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its slot. Nothing stays of it that a later row could meet."""
        last = self.rows - 1
        if last == 0:
            self.clear()
            return
        width = max(self._lengths[row], self._lengths[last])
        for tensor in (tensor for layer in self._layers for tensor in layer):
            if row != last:
                tensor[row, :, :width] = tensor[last, :, :width]
            tensor[last, :, :width] = 0
        self._lengths[row], self._finals[row] = self._lengths[last], self._finals[last]
        del self._lengths[last], self._finals[last]

    def clear(self) -> None:
        """Remove all rows and give their memory back."""
        self._lengths.clear()
        self._finals.clear()
        self._layers = []

    def begin_step(self) -> tuple[Tensor, Tensor]:
        """Make room for a token per row; return the rows' positions (rows × 1) and their mask.

        The mask is rows × 1 × 1 × columns, to be added to the attention's scores: 0 where a row has a token, else the
        least number there is.
        """
        self._make_room()
        self._columns = max(self._lengths) + 1
        self._slots = torch.arange(self.rows, device=self._device)
        self._places = torch.tensor(self._lengths, device=self._device)
        self._lengths = [length + 1 for length in self._lengths]
        unused = torch.arange(self._columns, device=self._device) > self._places[:, None]
        dtype = self._layers[0].keys.dtype
        mask = torch.zeros(unused.shape, dtype=dtype, device=self._device)
        mask.masked_fill_(unused, torch.finfo(dtype).min)
        return self._places[:, None], mask[:, None, None, :]

    def write(self, index: int, keys: Tensor, values: Tensor) -> Layer:
        """Write a layer's new column (rows × heads × 1 × size), each row at its own place; return what is looked at."""
        layer = self._layers[index]
        layer.keys[self._slots, :, self._places] = keys[:, :, 0]
        layer.values[self._slots, :, self._places] = values[:, :, 0]
        return Layer(*(each[: self.rows, :, : self._columns] for each in layer))

    def _make_room(self) -> None:
        rows, columns = self.rows, max(self._lengths) + 1
        held = self._layers[0].keys.shape
        if held[0] >= rows and held[2] >= columns:
            return
        filled = (min(held[0], rows), min(held[2], columns))
        size = (rows + rows // 4, min(columns + max(columns // 4, _SPARE_COLUMNS), max(self._finals)))
        # one by one, so that only one is there twice; the first one last, since by it is seen whether there is room:
        # where memory ends before that, the next try begins anew
        for index in reversed(range(len(self._layers))):
            layer = self._layers[index]
            self._layers[index] = Layer(*(_moved(each, size, filled) for each in layer))


class SlotView(Cache):
    """The cache as transformers' models take it."""

    def __init__(self, slots: SlotCache, layers: int) -> None:
        super().__init__(layers=[_View(slots, index) for index in range(layers)])
        self.slots = slots


class _View(CacheLayerMixin):
    """One layer of the cache as transformers' attention uses it."""

    is_sliding = False

    def __init__(self, cache: SlotCache, index: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache
        self._index = index

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the first row that is added brings the shapes."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._cache.write(self._index, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._cache.columns, 0

    def get_seq_length(self) -> int:
        return self._cache.columns - 1

    def get_max_length(self) -> int:
        return -1


def _none_of(like: Tensor) -> Tensor:
    return like.new_zeros((0, like.shape[1], 0, like.shape[3]))


def _moved(old: Tensor, size: tuple[int, int], filled: tuple[int, int]) -> Tensor:
    new = old.new_zeros((size[0], old.shape[1], size[1], old.shape[3]))
    new[: filled[0], :, : filled[1]] = old[: filled[0], :, : filled[1]]
    return new
