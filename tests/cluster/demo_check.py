"""Runs in a pod: asks a worker for embeddings, then computes them without it, and compares.

``python demo_check.py URL MODEL FOLDER``: FOLDER is the model's folder, or its name on the hub. Nothing of our own
code is used: the request is plain HTTP, the other side is transformers and torch. Prints one JSON object a line.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any

TEXTS = [
    "Hello, world",
    "A worker that is idle gives its memory back.",
    "Ein Satz in einer anderen Sprache: größer, schöner, weiter.",
    "The quick brown fox jumps over the lazy dog. " * 40,
]
CONNECT_SECONDS = 30.0
MAX_TOKENS = 256


def ask(url: str, model: str) -> tuple[list[list[float]], float]:
    """The worker's vectors, and the seconds that its answer took."""
    body = json.dumps({"model": model, "input": TEXTS}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                parsed = json.load(answer)
            return [item["embedding"] for item in parsed["data"]], time.monotonic() - started
        except urllib.error.HTTPError as refused:
            sys.exit(f"{url} answered {refused.code}: {refused.read(500).decode(errors='replace')}")
        except urllib.error.URLError as error:
            if time.monotonic() > deadline:  # the name and the Service may be a moment behind the pod
                sys.exit(f"{url} cannot be reached: {error.reason}")
            time.sleep(0.2)


def compute(folder: str) -> Any:
    """The same vectors, directly: mean over the tokens, normalised."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def main(url: str, model: str, folder: str) -> None:
    """Print the answer's facts, then how near the two are."""
    vectors, seconds = ask(url, model)
    first = [round(number, 4) for number in vectors[0][:4]]
    facts = {"vectors": len(vectors), "dimensions": len(vectors[0]), "seconds": round(seconds, 3), "first": first}
    print(json.dumps(facts), flush=True)
    import torch

    theirs = torch.nn.functional.normalize(torch.tensor(vectors), dim=1)
    cosines = (theirs * compute(folder)).sum(1).tolist()
    print(json.dumps({"cosines": cosines}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
