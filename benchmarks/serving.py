"""Latency of a served model: requests from several users at once, each answer compared with the first.

mlflow models serve -m models:/deepbedmap/latest --env-manager local &
python benchmarks/serving.py
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import requests

from deepbedmap_tf.inference.client import LOCAL_SERVER, request_body


def window(cells: int) -> dict[str, np.ndarray]:
    """A window of random fields of plausible size."""
    generator = np.random.default_rng(0)

    def field(ratio: int, channels: int, mean: float, spread: float) -> np.ndarray:
        return (mean + spread * generator.normal(size=(1, cells * ratio, cells * ratio, channels))).astype(np.float32)

    return {
        "bed_lowres": field(1, 1, -900, 200),
        "surface": field(10, 1, 900, 20),
        "velocity": field(2, 2, 150, 40),
        "accumulation": field(1, 1, 400, 50),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default=LOCAL_SERVER)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--cells", type=int, default=11, help="side of the window in low-resolution cells")
    options = parser.parse_args()
    body, kept = request_body(window(options.cells)), threading.local()

    def ask(_: int) -> tuple[float, int, bytes]:
        if not hasattr(kept, "session"):
            kept.session = requests.Session()
        began = time.perf_counter()
        answer = kept.session.post(options.address, body, headers={"Content-Type": "application/json"}, timeout=600)
        return time.perf_counter() - began, answer.status_code, answer.content

    for _ in range(3):
        _, status, expected = ask(0)
        if status != 200:
            raise SystemExit(f"{options.address} answered with status {status}: {expected[:300]!r}")
    began = time.perf_counter()
    with ThreadPoolExecutor(options.at_once) as pool:
        answers = list(pool.map(ask, range(options.requests)))
    total = time.perf_counter() - began
    errors = sum(status != 200 for _, status, _ in answers)
    different = sum(status == 200 and content != expected for _, status, content in answers)
    latency = 1000 * np.array([seconds for seconds, _, _ in answers])
    print(f"{options.requests} requests of {options.cells} x {options.cells} cells, {options.at_once} at a time")
    print(f"errors {errors}, other answers than the first {different}, body {len(body) / 1e3:.0f} kB")
    quantiles = np.percentile(latency, [50, 95, 100])
    print("latency p50 {:.0f} ms, p95 {:.0f} ms, longest {:.0f} ms".format(*quantiles))
    print(f"{options.requests / total:.1f} requests/s")
    if errors or different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
