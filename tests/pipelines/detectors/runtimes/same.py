"""Whether two runtimes have found the same, which they compute in another order each."""

import numpy as np

from pipelines.detectors.contract import LabelledImage
from pipelines.detectors.runtimes.contract import Found


def assert_same(mine: object, theirs: object) -> None:
    """The same boxes, to 1e-3 of a pixel or of themselves, with the same classes and scores.

    In the same order, but for those whose scores are the same but for the last digits.
    """
    assert isinstance(mine, Found | LabelledImage)
    assert isinstance(theirs, Found | LabelledImage)
    assert len(mine.scores) == len(theirs.scores)
    if not len(mine.scores):
        return
    far = np.abs(mine.boxes_xyxy[:, None] - theirs.boxes_xyxy).max(axis=-1)  # (N, N) pixels
    far[mine.class_ids[:, None] != theirs.class_ids] = np.inf
    twins = far.argmin(axis=1)
    assert len(set(twins)) == len(twins)
    np.testing.assert_allclose(mine.boxes_xyxy, theirs.boxes_xyxy[twins], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mine.scores, theirs.scores[twins], atol=1e-4)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
