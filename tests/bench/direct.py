"""The model called directly, without HTTP: a child process that is told what to do by lines of JSON.

Run by the worker's own environment: ``python direct.py KIND FOLDER DTYPE``; answers each line of its input by one line.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch


class Sentences:
    """`SentenceTransformer.encode` over texts."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        return {"vectors": self._encode(texts, 32).tolist()}

    def batches(self, texts: list[str]) -> dict[str, Any]:
        start = time.perf_counter()
        self._encode(texts, 32)
        return {"per_second": len(texts) / (time.perf_counter() - start)}

    def one_by_one(self, texts: list[str]) -> dict[str, Any]:
        taken = []
        for text in texts:
            start = time.perf_counter()
            self._encode([text], 1)
            taken.append(time.perf_counter() - start)
        return {"per_second": len(taken) / sum(taken), "p50_ms": statistics.median(taken) * 1e3}

    def _encode(self, texts: list[str], size: int) -> Any:
        return self._model.encode(texts, batch_size=size, show_progress_bar=False, normalize_embeddings=True)


class Decoder:
    """Greedy `generate` of a causal language model."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype))

    def sequential(self, texts: list[str], tokens: int) -> dict[str, Any]:
        start = time.perf_counter()
        made = [self._generate([text], tokens)[0] for text in texts]
        return self._answer(made, start)

    def padded(self, texts: list[str], tokens: int) -> dict[str, Any]:
        start = time.perf_counter()
        return self._answer(self._generate(texts, tokens), start)

    def _answer(self, made: list[list[int]], start: float) -> dict[str, Any]:
        seconds = time.perf_counter() - start
        texts = self._tokenizer.batch_decode(made, skip_special_tokens=True)
        return {"tokens_per_second": sum(map(len, made)) / seconds, "texts": texts}

    def _generate(self, texts: list[str], tokens: int) -> list[list[int]]:
        inputs = self._tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            made = self._model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        new: list[list[int]] = made[:, inputs["input_ids"].shape[1] :].tolist()
        return new


def main(kind: str, folder: str, dtype: str) -> None:
    """Answer until the input ends."""
    model = {"sentences": Sentences, "decoder": Decoder}[kind](Path(folder), dtype)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(model, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
