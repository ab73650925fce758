"""Reliability: whether of the detections with a score of 0.8 eight in ten are hits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.curves import Curves, Floats

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Detections by their score, in BINS bins of equal width from 0 to 1."""

    counts: NDArray[np.int64]
    """(BINS,)"""
    mean_score: Floats
    """(BINS,) NaN for a bin without detections."""
    precision: Floats
    """(BINS,) likewise: the share of hits."""

    @property
    def error(self) -> float | None:
        """The expected calibration error: how far score and precision are apart, on average.

        Each bin counts by its detections. A detector that keeps many boxes of low scores is mostly
        measured on those. None without detections.
        """
        if not self.counts.any():
            return None
        apart = np.nan_to_num(np.abs(self.mean_score - self.precision))
        return float(np.average(apart, weights=self.counts))


def reliability(curves: Curves) -> Reliability:
    """Hold the scores of a class, or of all, against the share of hits."""
    bins = np.minimum((curves.scores * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = np.where(counts, counts, np.nan)
    return Reliability(
        counts=counts,
        mean_score=np.bincount(bins, curves.scores, BINS) / filled,
        precision=np.bincount(bins, curves.hits, BINS) / filled,
    )
