"""LitServe with its own batching: POST {"image": base64 of a JPEG} to /predict.

    python benchmarks/peers/litserve_per_image.py PORT MAX_BATCH LABEL …

Written after LitServe's own documents: one worker process with the model (the encoder has threads
of its own), requests gathered for at most 5 ms into batches of up to MAX_BATCH.
"""

import base64
import sys
from typing import Any

import litserve
from image_scores import ImageScores, decode, to_answer

from ovoad_model.detector import Scores

BATCH_TIMEOUT_S = 0.005


class PerImage(litserve.LitAPI):
    """Decode, score a batch, answer."""

    def __init__(self, labels: list[str], **batching: Any) -> None:
        super().__init__(**batching)
        self.labels = labels

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.model = ImageScores(self.labels)

    def decode_request(self, request: dict[str, str]) -> Any:
        """Return pixels."""
        return decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Images keep their sizes: the encoder takes a list."""
        return inputs

    def predict(self, images: Any) -> Any:
        """Score a batch, or one image where batches have one."""
        return self.model.score(images) if isinstance(images, list) else self.model.score([images])

    def unbatch(self, output: list[Scores]) -> list[Scores]:
        """One score an image."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the answer."""
        return to_answer(output[0] if isinstance(output, list) else output)


if __name__ == "__main__":
    port, max_batch, *labels = sys.argv[1:]
    api = PerImage(labels, max_batch_size=int(max_batch), batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
