"""One text while it is generated: its tokens become text, and it knows when it is over."""

from collections.abc import Collection

from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Finish, TextDelta, TokenLogprob
from modelpool_worker.generation.sampler import Chosen, Draw, Logprobs
from modelpool_worker.generation.stops import StopStrings
from modelpool_worker.generation.vocabulary import Vocabulary


class Answer:
    """What a prompt has been answered so far. ``draw`` chooses its tokens."""

    def __init__(self, prompt: GenerationPrompt, vocabulary: Vocabulary, ends: Collection[int]) -> None:
        self.draw = Draw.begin(prompt.sampling, prompt.choice)
        self._left = prompt.max_new_tokens
        self._vocabulary = vocabulary
        self._ends = ends
        self._stream = vocabulary.stream()
        self._stops = StopStrings(prompt.sampling.stop)

    def take(self, chosen: Chosen) -> TextDelta:
        """Take the next token and return what it adds; with ``finish`` set the answer is over."""
        self._left -= 1
        logprobs: tuple[TokenLogprob, ...] = ()
        finish: Finish | None = None
        if chosen.token in self._ends:
            text, finish = "", "stop"
        else:
            text = self._stops.add(self._stream.add(chosen.token))
            if chosen.logprobs is not None:
                logprobs = (self._described(chosen.token, chosen.logprobs),)
            if self._left <= 0:
                finish = "length"
        if finish is not None:
            text += self._stops.add(self._stream.end())
        if self._stops.found:
            finish = "stop"
        elif finish is not None:
            text += self._stops.end()
        return TextDelta(text, 1, logprobs, finish)

    def _described(self, token: int, logprobs: Logprobs) -> TokenLogprob:
        read = self._vocabulary
        top = tuple(TokenLogprob(read.text(each), value, read.data(each)) for each, value in logprobs.top)
        return TokenLogprob(read.text(token), logprobs.chosen, read.data(token), top)
