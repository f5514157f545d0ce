"""Run inside a container by check_image.py: wait until the server is ready, then hold a session.

Reads STARTED_S (time.monotonic() when the container was started), API_KEY and PORT from the
environment; prints one JSON object. Needs what the image has: the client, OpenCV and numpy.
"""

import http.client
import json
import os
import statistics
import time

import cv2
import numpy as np

from ovoad_client.sync import connect

FRAMES = 60
WAIT_S = 60.0


def main() -> None:
    """Print seconds from the start to ready and to the first prediction, and the latency."""
    started_s = float(os.environ["STARTED_S"])
    address = f"127.0.0.1:{os.environ['PORT']}"
    key = os.environ["API_KEY"]
    wait_until_ready(address)
    ready_s = time.monotonic() - started_s
    labels = ["riding a bicycle", "playing the piano"]
    seen, first_s, total_ms = 0, 0.0, []
    with connect(address, labels, policy="lossless", api_key=key) as stream:
        for number in range(FRAMES):
            sent_s = time.monotonic()
            stream.send(picture(number), timestamp_ms=250 * number)
            while next(stream).type != "prediction":
                pass
            first_s = first_s or time.monotonic() - started_s
            seen += 1
            total_ms.append(1000 * (time.monotonic() - sent_s))
    print(
        json.dumps(
            {
                "ready_s": round(ready_s, 2),
                "first_prediction_s": round(first_s, 2),
                "predictions": seen,
                "median_ms": round(statistics.median(total_ms), 1),
                "without_key": status(address, "/v1/config", None),
                "metrics_with_key": status(address, "/metrics", key),
            }
        )
    )


def picture(number: int) -> bytes:
    """Return a JPEG [360, 640] of noise that differs from frame to frame."""
    noise = np.random.default_rng(number).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (640, 360)))[1].tobytes()


def wait_until_ready(address: str) -> None:
    """Ask /readyz until it is green; raises TimeoutError."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            if status(address, "/readyz", None) == http.client.OK:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"the server was not ready within {WAIT_S:g} s")


def status(address: str, path: str, key: str | None) -> int:
    """Return the status of a GET."""
    connection = http.client.HTTPConnection(address, timeout=10)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    main()
