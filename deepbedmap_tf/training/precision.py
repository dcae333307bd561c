"""Which precision a machine computes fastest in."""

from __future__ import annotations

import logging
from pathlib import Path

LOGGER = logging.getLogger(__name__)

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def choose_precision(setting: str) -> str:
    """Return the Keras precision policy for a configuration's `precision`, and log why.

    Parameters
    ----------
    setting
        A policy's name, or ``auto``: mixed_bfloat16 on a GPU of compute capability 8 or more or a CPU with bfloat16
        instructions, mixed_float16 on a GPU of capability 7, float32 elsewhere.
    """
    if setting != "auto":
        return setting
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        policy = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
        LOGGER.info("precision: %s, for a GPU of compute capability %d.%d", policy, *capability)
        return policy
    has_bfloat16 = bool(BFLOAT16_FLAGS & cpu_flags())
    policy = "mixed_bfloat16" if has_bfloat16 else "float32"
    LOGGER.info("precision: %s, as this CPU has %s bfloat16 instructions", policy, "its own" if has_bfloat16 else "no")
    return policy


def cpu_flags() -> set[str]:
    """Return the instruction sets that Linux lists for this CPU; empty on other systems."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return set()
    for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
