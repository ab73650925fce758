"""Files that kill a detector, and one that never lets it go."""

import boto3
import duckdb
import pytest

from tests.reliability.harness import IMAGES, Files, Job

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KINDS = {"CRASH": "crashed", "OOM": "out_of_memory", "NAN": "not_finite"}


def _put(prefix: str, bodies: dict[str, bytes]) -> str:
    client = boto3.client("s3")
    for name, body in bodies.items():
        client.put_object(Bucket="archive", Key=f"{prefix}/{name}", Body=body)
    return f"s3://archive/{prefix}/"


def test_a_file_that_kills_the_detector_costs_one_row(job: Job) -> None:
    words = {number * 23: word for number, word in enumerate(KINDS)}
    bodies = {f"{n:03d}.jpg": f"{words.get(n, 'image')} {n}".encode() for n in range(80)}
    job.source = _put("poison", bodies)
    job.finish()
    copy = Files(job.table).copy_to(job.folder / "copy")
    failed = duckdb.sql(
        "SELECT parse_filename(image_uri, true)::INT AS n, error_kind, error_message "
        f"FROM {IMAGES.format(copy)} WHERE status = 'failed' ORDER BY n"
    ).fetchall()
    assert [(n, kind) for n, kind, _ in failed] == [(n, KINDS[word]) for n, word in words.items()]
    assert "SIGSEGV" in failed[0][2]
    labelled = f"SELECT count(*) FROM {IMAGES.format(copy)}"
    assert duckdb.sql(labelled).fetchall() == [(80,)]


def test_a_run_that_hangs_says_what_each_stage_was_doing(job: Job) -> None:
    job.source = _put("hang", {f"{n}.jpg": b"HANG" if n == 15 else b"image" for n in range(10, 30)})
    job.flags = ["--stall_timeout=20"]
    process = job.start()
    assert process.wait() == 4, process.errors()
    errors = process.errors()
    assert "error: nothing has moved for 20 s\n" in errors
    assert "fetch: idle for " in errors
    assert "detect: part 0 for " in errors
    assert "write: idle for " in errors
    assert "the same command goes on" in errors
