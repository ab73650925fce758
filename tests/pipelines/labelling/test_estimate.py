from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipelines.labelling.estimate import Estimate, Found, Trial, estimate
from pipelines.labelling.trial import _Draw
from pipelines.labelling.writing import Part
from pipelines.planning import ActorPlan
from pipelines.storage import to_parquet
from pipelines.tables import DETECTIONS, IMAGES, LISTED, Ledger

EMPTY = sum(len(to_parquet(schema.empty_table())) for schema in (IMAGES, DETECTIONS))


def _part(images: int = 10, gone: int = 0, retries: int = 0, detect_s: float = 2.0) -> Part:
    ledger = Ledger(0, images - gone, 0, {"gone": gone} if gone else {}, detections=3 * images)
    seconds = {"fetch": 0.5, "detect": detect_s, "write": 0.5}
    return Part(0, ledger, seconds, retries, 1000 * images, EMPTY + 50 * images)


def _found(images: int = 100_000, **others: object) -> Found:
    known = {"skipped": 0, "left_out": {}, "size_bytes": images * 1000}
    return Found(images=images, sample=LISTED.empty_table(), **{**known, **others})


def _estimate(
    found: Found, parts: Sequence[Part], first_part_s: float, plan: ActorPlan, *more: int
) -> Estimate:
    trial = Trial(plan=plan, parts=parts, first_part_s=first_part_s, leaving_s=2.0)
    return estimate(found, trial, 1000, [plan.num_actors, *more], reads_s3=True, writes_s3=True)


def test_the_pace_is_that_of_the_parts_after_the_first_one_of_each_actor() -> None:
    """Each of two actors takes 8 s for its first ten images, and then 2 s: 5 images a second."""
    parts = [_part(detect_s=8.0)] * 2 + [_part(detect_s=2.0)] * 4
    told = _estimate(_found(), parts, 20, ActorPlan(2, 1.0, 0.0), 8)
    assert told.images_per_second == pytest.approx(10)
    # The first ten images came after 20 s, of which they would take 2 s of an actor at its pace.
    assert told.start_up_seconds == pytest.approx(18)
    seconds = [each.seconds for each in told.durations]
    assert seconds == pytest.approx([18 + 1e4 + 2, 18 + 2.5e3 + 2])
    assert [each.num_actors for each in told.durations] == [2, 8]
    assert [each.gpu_hours for each in told.durations] == [0, 0]


def test_half_a_gpu_for_two_hours_is_one_gpu_hour() -> None:
    parts = [_part(detect_s=1.0)] * 3
    told = _estimate(_found(72_000 - 20), parts, 0, ActorPlan(1, 1.0, 0.5))
    assert told.durations[0].seconds == pytest.approx(7200)
    assert told.durations[0].gpu_hours == pytest.approx(1)


def test_of_a_sample_that_is_one_part_the_pace_is_what_kept_the_detector_busy() -> None:
    told = _estimate(_found(), [_part(images=10, detect_s=2.0)], 9.0, ActorPlan(1, 1.0, 0.0))
    assert told.images_per_second == pytest.approx(5)


def test_what_the_sample_has_is_scaled_to_what_was_found() -> None:
    parts = [_part(gone=1, retries=2), _part(), _part(), _part()]
    found = _found(images=100_000, skipped=50_000, left_out={".txt": 51_000})
    told = _estimate(found, parts, 1, ActorPlan(1, 1.0, 0.0))
    assert told.share_failed == {"gone": 1 / 40}
    assert told.detections == 300_000
    assert told.table_bytes == 100 * EMPTY + 100_000 * 50  # 100 parts of 1,000 images
    assert told.requests == {"list": 201, "get": 105_000, "put": 200}


def test_large_images_make_more_parts() -> None:
    found = _found(size_bytes=100_000 * 1_000_000)
    told = _estimate(found, [_part()] * 2, 1, ActorPlan(1, 1.0, 0.0))
    assert told.requests["put"] == 2 * 747  # 134 of them in a part


def test_every_image_is_as_likely_in_the_sample_as_any_other() -> None:
    draw = _Draw(2000)
    uris = [f"{number:05d}" for number in range(10_000)]
    for start in range(0, 10_000, 1000):
        rows = [{"image_uri": uri} for uri in uris[start : start + 1000]]
        draw.add(pa.Table.from_pylist(rows, LISTED))
    drawn = draw.drawn["image_uri"].to_pylist()
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 2000
    # 1,000 of either half, give or take six standard deviations.
    assert abs(sum(uri < "05000" for uri in drawn) - 1000) < 6 * 20
