"""Deterministic weights and inputs, from names alone, so that two implementations can be compared
without exchanging weight files.

    tensor(name, *shape)          uniform in [0, 1), reproducible on any machine (NumPy PCG64)
    state_dict(template, name)    a state dict with the keys and shapes of `template`
    frames(name, n, height, width)  n smooth, shifted RGB frames, float32 in [0, 1]
"""

import zlib

import numpy as np


def tensor(name, *shape):
    """float32 array of `shape`, uniform in [0, 1), seeded by the CRC-32 of `name`."""
    return np.random.default_rng(zlib.crc32(name.encode())).random(shape, dtype=np.float32)


def state_dict(template, name):
    """Weights for every key of `template` (a mapping key -> array, or key -> shape).

    conv/linear weights: uniform, zero mean, He-scaled by fan-in; biases: uniform in +-0.05;
    batch-norm weight in [0.5, 1.5), bias +-0.1, running_mean +-0.1, running_var [0.5, 1.5),
    num_batches_tracked 1.
    """
    out = {}
    for key, value in template.items():
        shape = tuple(getattr(value, "shape", value))  # arrays, or plain shapes as in keys.json
        u = tensor(f"{name}/{key}", *shape)
        if key.endswith("num_batches_tracked"):
            out[key] = np.array(1, dtype=np.int64)
        elif len(shape) >= 2:
            fan_in = int(np.prod(shape[1:]))
            out[key] = (u - 0.5) * np.float32(np.sqrt(12.0) * np.sqrt(1.5 / fan_in))
        elif key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
            out[key] = u + np.float32(0.5)
        elif key.endswith("running_mean") or "bn" in key or "downsample.1" in key:
            out[key] = (u - 0.5) * np.float32(0.2)
        else:
            out[key] = (u - 0.5) * np.float32(0.1)
    return out


def frames(name, n, height, width, shift=1.7):
    """n RGB frames [n, 3, height, width] in [0, 1]: band-limited noise that moves `shift` pixels
    to the left per frame, with a slower upper third, so neighbouring frames really overlap."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = np.arange(width, dtype=np.float64)[None, :]
    y = np.arange(height, dtype=np.float64)[:, None]
    fx = rng.uniform(-0.35, 0.35, (3, 24))
    fy = rng.uniform(-0.35, 0.35, (3, 24))
    ph = rng.uniform(0, 2 * np.pi, (3, 24))
    amp = rng.uniform(0.3, 1.0, (3, 24))
    speed = np.where(y < height / 3, 0.4, 1.0)
    out = np.zeros((n, 3, height, width))
    for i in range(n):
        xs = x + shift * i * speed
        for c in range(3):
            for k in range(24):
                out[i, c] += amp[c, k] * np.sin(fx[c, k] * xs + fy[c, k] * y + ph[c, k])
    out = 0.5 + 0.5 * np.tanh(out / 3.0)
    return out.astype(np.float32)
