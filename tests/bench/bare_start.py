"""The shortest script that has the model in memory: what a cold start is compared with.

Prints the seconds of each phase as one line of JSON once a text has gone through the model.
"""

import json
import sys
import time


def main(folder: str) -> None:
    """Import, load, run once."""
    started = time.perf_counter()
    import torch
    from transformers import AutoModel, AutoTokenizer

    imported = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    loaded = time.perf_counter()
    with torch.inference_mode():
        model(**tokenizer("warm up", return_tensors="pt"))
    ready = time.perf_counter()
    print(json.dumps({"imports": imported - started, "load": loaded - imported, "warm_up": ready - loaded}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
