"""An embedding server on LitServe as its own guide writes one: batches form by themselves, the model encodes them."""

import argparse

import litserve
from sentence_transformers import SentenceTransformer


class Embedder(litserve.LitAPI):
    """Requests ``{"input": [text, …]}`` → ``{"embeddings": [[number, …], …]}``."""

    def __init__(self, folder: str, **batching: float) -> None:
        super().__init__(**batching)
        self.folder = folder

    def setup(self, device: str) -> None:
        self.model = SentenceTransformer(self.folder, device=device)

    def decode_request(self, request: dict) -> list[str]:
        return request["input"]

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        return inputs

    def predict(self, requests: list[list[str]]) -> list[list[list[float]]]:
        vectors = self.model.encode([text for texts in requests for text in texts], show_progress_bar=False).tolist()
        answers = []
        for texts in requests:
            answers.append(vectors[: len(texts)])
            del vectors[: len(texts)]
        return answers

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: list[list[float]]) -> dict:
        return {"embeddings": output}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    app = Embedder(arguments.folder, max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(app, accelerator="cpu").run(
        host="127.0.0.1", port=arguments.port, num_api_servers=1, generate_client_file=False
    )
