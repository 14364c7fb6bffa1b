"""How far a number could be off by the choice of images: the bootstrap over images (Efron 1979).

Pixels of one image are not independent, so whole images are drawn again, and counts are summed by weight.
"""

from __future__ import annotations

import numpy as np


def resample_weights(n_images: int, n: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each of `n` samples with replacement of the set's own size.

    Args:
        n_images: N, at least 1. The caller fixes the order, by path: the weights belong to positions.
        n: number of samples.
        seed: of NumPy's generator; the same weights on every machine.

    Returns:
        int64 (n, N), each row sums to N.
    """
    return np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=n)


def known(value: float) -> float | None:
    """A number as JSON has it: null for nan."""
    return None if np.isnan(value) else float(value)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval.

    Args:
        values: float (n,), one number per sample; nan where a sample has none, which is left out.
        level: share of the values between the two ends, 0..1.

    Returns:
        Lower and upper end; nan when nothing is left.
    """
    defined = np.asarray(values, np.float64)
    defined = defined[~np.isnan(defined)]
    if len(defined) == 0:
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
