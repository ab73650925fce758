"""An S3 that misbehaves while a run goes on: it costs time, or rows that say why."""

import json
import random
from collections import Counter

import boto3
import duckdb
import pytest

from tests.faulty_s3 import (
    FaultyS3,
    Request,
    Rule,
    access_denied,
    before,
    internal_error,
    lost_answer,
    refused,
    reset,
    slow_down,
    truncated,
)
from tests.reliability.harness import IMAGES, NUM_IMAGES, RUN, Files, Job, Rows, audit, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.moments(0, 20)
def test_thirty_per_cent_of_failing_requests_cost_time_only(
    job: Job, unbroken: Rows, faulty_s3: FaultyS3, chance: random.Random
) -> None:
    faulty_s3.clear(seed=chance.randrange(10**6))
    faults = (slow_down, internal_error, reset, truncated, lost_answer)
    rules = [
        # Each takes its share of what the ones before it left over.
        faulty_s3.add(Rule(fault, share=0.06 / (1 - 0.06 * number)))
        for number, fault in enumerate(faults)
    ]
    job.finish()
    assert all(faulty_s3.struck(rule) for rule in rules)
    faulty_s3.clear()
    files, copy = Files(job.table), job.folder / "copy"
    audit(files, copy)
    assert rows_of(files, copy) == unbroken


def test_what_cannot_be_read_becomes_a_row_that_says_why(job: Job, faulty_s3: FaultyS3) -> None:
    client = boto3.client("s3")

    def delete(request: Request) -> None:
        client.delete_object(Bucket="archive", Key="other/gone.jpg")

    def overwrite(request: Request) -> None:
        client.put_object(Bucket="archive", Key="other/changed.jpg", Body=b"something else")

    for name in ("gone", "changed", "denied", "io_error", "fine"):
        client.put_object(Bucket="archive", Key=f"other/{name}.jpg", Body=name.encode())
    rules = {
        "gone": before(delete),
        "changed": before(overwrite),
        "denied": access_denied,
        "io_error": refused(500, "InternalError"),
    }
    for name, fault in rules.items():
        faulty_s3.add(Rule(fault, method="GET", key=f"other/{name}.jpg"))
    job.source = "s3://archive/other/"
    process = job.start()
    assert process.wait() == 3, process.errors()  # too many failed
    copy = Files(job.table).copy_to(job.folder / "copy")
    rows = duckdb.sql(
        "SELECT parse_filename(image_uri, true) AS name, coalesce(error_kind, 'fine') "
        f"FROM {IMAGES.format(copy)}"
    ).fetchall()
    assert sorted(rows) == [(name, name) for name in sorted([*rules, "fine"])]


def test_a_storage_that_hardly_answers_stops_the_run_before_it_fails_the_archive(
    job: Job, unbroken: Rows, faulty_s3: FaultyS3
) -> None:
    asked = Counter[str]()

    def is_one_of_the_first_two(request: Request) -> bool:
        asked[request.key] += 1
        return asked[request.key] <= 2

    faulty_s3.add(Rule(slow_down, method="GET", key="photos/*", when=is_one_of_the_first_two))
    job.flags = ["--max_retries_per_image=0.01", "--images_per_part=16"]
    process = job.start()
    assert process.wait() == 1
    assert "had to be repeated, more than max_retries_per_image=0.01" in process.errors()
    faulty_s3.clear()
    files, name = Files(job.table), f"runs/{RUN}.json"
    retries = json.loads(files.read(name))["retries"]
    assert retries > 100
    assert 0 < len(rows_of(files, job.folder / "copy")["images"]) < NUM_IMAGES
    job.finish()
    assert json.loads(files.read(name))["retries"] == retries  # those of the stopped attempt count
    audit(files, job.folder / "copy")
