"""Storage that misbehaves: every kind of fault, and what it costs."""

import inspect
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipelines.labelling.blocks import FETCHED
from pipelines.labelling.fetching import fetch_block
from pipelines.photos.errors import ImageError
from pipelines.photos.fetching import ImageRef, fetch
from pipelines.storage import s3
from pipelines.storage.folder import Folder
from pipelines.storage.objects import list_objects
from pipelines.storage.s3 import IMAGE_RETRIES, TABLE_RETRIES, RetryPolicy
from tests.faulty_s3 import (
    Answer,
    Fault,
    FaultyS3,
    Forward,
    Hold,
    Request,
    Rule,
    access_denied,
    before,
    internal_error,
    lost_answer,
    refused,
    reset,
    slow_down,
    stall,
    stall_half_way,
    truncated,
)

QUICK = RetryPolicy(first_backoff_s=0.01, max_backoff_s=0.05, read_timeout_s=0.5)
"""Tries as often as the real one, on an S3 whose bad days last for seconds."""
QUICK_WHEN_BUSY = replace(QUICK, read_timeout_s=2)
"""For many requests at once, to a server that answers them one by one."""

MAX_BYTES = 100_000

PASSING: dict[str, Fault] = {
    "slow_down": slow_down,
    "internal_error": internal_error,
    "reset": reset,
    "truncated": truncated,
    "stall": stall(30),
    "stall_half_way": stall_half_way(30),
    "lost_answer": lost_answer,
}


@pytest.fixture(params=PASSING.values(), ids=PASSING)
def passing(request: pytest.FixtureRequest) -> Fault:
    fault: Fault = request.param
    return fault


@pytest.fixture
def folder(bucket) -> Folder:
    return Folder(f"s3://{bucket.name}/table", QUICK)


def _share_failing(faulty_s3: FaultyS3, share: float, faults: Collection[Fault]) -> list[Rule]:
    """Let this share of all requests fail, by each of these faults alike."""
    each = 1 - (1 - share) ** (1 / len(faults))
    return [faulty_s3.add(Rule(fault, share=each)) for fault in faults]


def _listed(uris: list[str], parts: list[int]) -> pa.Table:
    """What the fetch stage is given: images of which nothing is known, one in each part."""
    columns = {
        "part": parts,
        "part_rows": [1] * len(parts),
        "image_uri": uris,
        "etag": [None] * len(uris),
        "size_bytes": [None] * len(uris),
    }
    return pa.table(columns, schema=pa.schema([FETCHED.field(name) for name in columns]))


@pytest.fixture(params=[False, True], ids=["unknown", "known"])
def archive(bucket, request: pytest.FixtureRequest) -> Any:
    """A bucket of which this process has no photo yet, or one: how it is asked depends on that."""
    if request.param:
        assert _kinds([ImageRef(bucket.put("first.jpg", b"first"))]) == [b"first"]
    return bucket


def _kinds(images: list[ImageRef]) -> list[bytes | str]:
    bodies = [image.body for image in fetch(images, MAX_BYTES, QUICK)]
    return [str(body.kind) if isinstance(body, ImageError) else body for body in bodies]


def test_a_fault_that_passes_costs_an_image_time_only(archive, faulty_s3, passing) -> None:
    key = f"{archive.name}.jpg"  # no other test's, whose requests may still arrive
    uri = archive.put(key, b"0123456789")
    faulty_s3.add(Rule(passing, method="GET", key=key, times=3))
    [image] = fetch([ImageRef(uri)], MAX_BYTES, QUICK)
    assert image.body == b"0123456789"
    assert faulty_s3.count("GET", key) == 4


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", "gone"),
        (403, "AccessDenied", "denied"),
        (403, "InvalidObjectState", "denied"),
        (412, "PreconditionFailed", "changed"),
        (400, "InvalidRequest", "io_error"),
    ],
)
def test_what_does_not_pass_is_typed_at_the_first_try(
    archive, faulty_s3, status: int, code: str, kind: str
) -> None:
    uris = [archive.put(f"{name}.jpg", b"1") for name in "ab"]
    faulty_s3.add(Rule(refused(status, code), key="a.jpg"))
    assert _kinds([ImageRef(uri) for uri in uris]) == [kind, b"1"]
    assert faulty_s3.count("GET", "a.jpg") == 1


def test_an_image_that_never_comes_is_tried_ten_times_and_costs_no_neighbour(
    archive, faulty_s3
) -> None:
    uris = [archive.put(f"{name}.jpg", b"1") for name in "ab"]
    faulty_s3.add(Rule(slow_down, key="a.jpg"))
    never, neighbour = fetch([ImageRef(uri) for uri in uris], MAX_BYTES, QUICK)
    assert isinstance(never.body, ImageError)
    assert str(never.body.kind) == "io_error"
    assert "SlowDown" in str(never.body)
    assert (never.retries, neighbour.body, neighbour.retries) == (9, b"1", 0)


def test_an_image_that_never_comes_costs_a_minute_at_most() -> None:
    policy = IMAGE_RETRIES
    longest = [
        max(policy.backoff_s(retry) for _ in range(200)) for retry in range(1, policy.attempts)
    ]
    assert sum(longest) < 43  # S3 says no at once
    assert policy.patience_s + policy.read_timeout_s <= 60  # S3 says nothing


@pytest.mark.parametrize(("retry", "longest_s"), [(1, 0.2), (2, 0.4), (5, 3.2), (9, 10)])
def test_requests_that_failed_together_come_again_one_by_one(retry: int, longest_s: float) -> None:
    waits = sorted(IMAGE_RETRIES.backoff_s(retry) for _ in range(1000))
    # Full jitter: all of the time up to the longest wait is used alike.
    for share in (0.1, 0.5, 0.9):
        assert waits[int(1000 * share)] == pytest.approx(share * longest_s, abs=0.1 * longest_s)
    assert waits[-1] <= longest_s


def test_the_patience_that_the_documentation_states() -> None:
    assert (IMAGE_RETRIES.attempts, IMAGE_RETRIES.read_timeout_s) == (10, 6)
    assert (TABLE_RETRIES.attempts, TABLE_RETRIES.read_timeout_s) == (10, 20)
    assert inspect.signature(fetch).parameters["policy"].default is IMAGE_RETRIES
    assert Folder("s3://bucket/table").policy is TABLE_RETRIES


def test_patience_ends_the_tries_of_an_image_that_stalls(archive, faulty_s3) -> None:
    uri = archive.put("a.jpg", b"1")
    faulty_s3.add(Rule(stall(30)))
    policy = RetryPolicy(first_backoff_s=0.01, patience_s=0.8, read_timeout_s=0.5)
    [image] = fetch([ImageRef(uri)], MAX_BYTES, policy)
    assert isinstance(image.body, ImageError)
    assert (str(image.body.kind), image.retries) == ("io_error", 1)


def test_the_fetch_stage_passes_parts_on_and_tells_the_retries(bucket, faulty_s3) -> None:
    uris = [bucket.put(f"{name}.jpg", b"1") for name in "ab"]
    faulty_s3.add(Rule(slow_down, key="b.jpg", times=2))
    fetched = fetch_block(_listed(uris, parts=[4, 5]), MAX_BYTES).select(
        ["part", "image_uri", "data", "retries"]
    )
    assert fetched.to_pylist() == [
        {"part": 4, "image_uri": uris[0], "data": b"1", "retries": 0},
        {"part": 5, "image_uri": uris[1], "data": b"1", "retries": 2},
    ]


def _overwrite(bucket) -> Callable[[Request], None]:
    return lambda request: bucket.put(request.key, b"9876543210")


def _delete(bucket) -> Callable[[Request], None]:
    return lambda request: bucket.client.delete_object(Bucket=bucket.name, Key=request.key)


@pytest.mark.parametrize(("happens", "kind"), [(_overwrite, "changed"), (_delete, "gone")])
def test_what_happens_between_listing_and_reading_is_told(
    archive, faulty_s3, happens, kind: str
) -> None:
    uri = archive.put("a.jpg", b"0123456789")
    [listed] = list_objects(uri, QUICK)
    faulty_s3.add(Rule(before(happens(archive)), method="GET"))
    assert _kinds([ImageRef(uri, listed.etag, listed.size_bytes)]) == [kind]


def test_halves_of_two_versions_of_an_object_are_never_put_together(archive, faulty_s3) -> None:
    uri = archive.put("a.jpg", b"0123456789")
    [listed] = list_objects(uri, QUICK)
    faulty_s3.add(Rule(truncated, method="GET", times=1))
    faulty_s3.add(Rule(before(_overwrite(archive)), method="GET"))
    assert _kinds([ImageRef(uri, listed.etag)]) == ["changed"]


def test_thirty_percent_of_requests_failing_costs_time_only(bucket, faulty_s3, monkeypatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "20")  # ten pages
    bodies = {bucket.put(f"photos/{n:03d}.jpg", b"%d" % n): b"%d" % n for n in range(200)}
    rules = _share_failing(faulty_s3, 0.3, PASSING.values())
    listed = list(list_objects(f"s3://{bucket.name}/photos/", QUICK_WHEN_BUSY))
    uris = [f"s3://{bucket.name}/{item.key}" for item in listed]
    assert uris == list(bodies)
    images = [
        ImageRef(uri, item.etag, item.size_bytes) for uri, item in zip(uris, listed, strict=True)
    ]
    fetched = fetch(images, MAX_BYTES, QUICK_WHEN_BUSY)
    assert [image.body for image in fetched] == list(bodies.values())
    assert all(faulty_s3.struck(rule) for rule in rules)
    assert sum(image.retries for image in fetched) > 20


def test_a_page_that_fails_half_way_neither_loses_nor_doubles_keys(
    bucket, faulty_s3, passing, monkeypatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    keys = [f"photos/{number}" for number in range(5)]
    for key in keys:
        bucket.put(key, b"1")
    on_second_page = Rule(passing, times=2, when=lambda asked: "continuation-token" in asked.query)
    faulty_s3.add(on_second_page)
    listed = list_objects(f"s3://{bucket.name}/photos", QUICK)
    assert [item.key for item in listed] == keys
    assert faulty_s3.struck(on_second_page) == 2


def test_a_folder_stands_every_fault_that_passes(folder: Folder, faulty_s3, passing) -> None:
    rules = []
    for method in ("PUT", "GET", "DELETE"):
        rules.append(faulty_s3.add(Rule(passing, method=method, times=1)))
    folder.write("runs/a.json", b"0123456789")
    assert folder.list() == ["runs/a.json"]
    assert folder.read("runs/a.json") == b"0123456789"
    assert folder.exists("runs/a.json")
    folder.delete("runs/a.json")
    assert not folder.exists("runs/a.json")
    assert [faulty_s3.struck(rule) for rule in rules] == [1, 1, 1]


def test_a_write_does_not_wait_to_be_told_to_continue(folder: Folder, faulty_s3) -> None:
    # aiohttp would wait for it without a time-out.
    folder.write("a.json", b"1")
    assert ["Expect" in request.headers for request in faulty_s3.requests] == [False]


def test_a_write_that_s3_holds_back_is_sent_again_and_may_arrive_twice(
    folder: Folder, faulty_s3
) -> None:
    hold = Hold()
    held = faulty_s3.add(Rule(hold, method="PUT", times=2))
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(folder.write, "a.json", b"1")
        assert hold.reached.wait(10)
        assert [request.key for request in faulty_s3.in_flight] == ["table/a.json"]
        writing.result()
    assert faulty_s3.struck(held) == 2
    folder.delete("a.json")
    hold.release()
    while faulty_s3.in_flight:
        time.sleep(0.01)
    assert folder.read("a.json") == b"1"


def test_a_file_that_is_not_there_is_known_at_the_first_try(folder: Folder, faulty_s3) -> None:
    with pytest.raises(FileNotFoundError, match=r"table/a\.json is not there"):
        folder.read("a.json")
    assert len(faulty_s3.requests) == 1


def test_a_folder_that_may_not_be_read_says_so_at_the_first_try(folder: Folder, faulty_s3) -> None:
    faulty_s3.add(Rule(access_denied))
    with pytest.raises(s3.ERRORS, match="AccessDenied"):
        folder.exists("a.json")
    assert len(faulty_s3.requests) == 1


@pytest.mark.parametrize("silence", [stall(30), stall_half_way(30)])
def test_silence_to_the_end_is_an_error_that_says_so(
    folder: Folder, faulty_s3, silence: Fault
) -> None:
    folder.write("a.json", b"0123456789")
    faulty_s3.add(Rule(silence))
    policy = RetryPolicy(patience_s=0, read_timeout_s=0.5)
    with pytest.raises(s3.ERRORS, match="Read timeout"):
        Folder(folder.uri, policy).read("a.json")


def test_a_try_that_never_ends_is_given_up(folder: Folder, faulty_s3) -> None:
    faulty_s3.add(Rule(stall(30)))
    policy = RetryPolicy(patience_s=0, read_timeout_s=60, longest_try_s=0.5)
    with pytest.raises(s3.ERRORS, match="S3 did not answer in time"):
        Folder(folder.uri, policy).read("a.json")


def test_a_file_is_created_once_though_the_answer_is_lost(folder: Folder, faulty_s3) -> None:
    faulty_s3.add(Rule(lost_answer, method="PUT", times=1))
    assert folder.create("lease", b"mine")
    assert not folder.create("lease", b"theirs")
    assert folder.read("lease") == b"mine"


def test_a_file_that_another_created_meanwhile_is_not_taken_for_ours(
    folder: Folder, bucket, faulty_s3
) -> None:
    faulty_s3.add(Rule(reset, method="PUT", times=1))
    faulty_s3.add(Rule(before(lambda request: bucket.put(request.key, b"theirs")), method="PUT"))
    assert not folder.create("lease", b"mine")
    assert folder.read("lease") == b"theirs"


def test_a_file_is_replaced_once_though_the_answer_is_lost(folder: Folder, faulty_s3) -> None:
    folder.write("lease", b"old")
    faulty_s3.add(Rule(lost_answer, method="PUT", times=1))
    assert folder.replace("lease", b"mine", expected=b"old")
    assert not folder.replace("lease", b"theirs", expected=b"old")
    assert folder.read("lease") == b"mine"


def test_a_file_that_changes_after_it_was_compared_is_not_replaced(
    folder: Folder, bucket, faulty_s3
) -> None:
    folder.write("lease", b"old")
    faulty_s3.add(Rule(before(lambda request: bucket.put(request.key, b"theirs")), method="PUT"))
    assert not folder.replace("lease", b"mine", expected=b"old")
    assert folder.read("lease") == b"theirs"


def test_parquet_files_are_read_from_an_s3_of_which_thirty_percent_fail(
    folder: Folder, faulty_s3
) -> None:
    names = [f"part-{number}.parquet" for number in range(10)]
    for number, name in enumerate(names):
        folder.write_table(name, pa.table({"n": [number]}))
    rules = _share_failing(faulty_s3, 0.3, [slow_down, internal_error, reset, truncated])
    stalled = faulty_s3.add(Rule(stall(30), method="GET", times=1))  # three seconds, for Arrow
    schema = pa.schema([("n", pa.int64())])
    rows = folder.dataset(names, schema).to_table()["n"].to_pylist()
    assert sorted(rows) == list(range(10))
    assert faulty_s3.struck(stalled) == 1
    assert sum(faulty_s3.struck(rule) for rule in rules) > 5


@pytest.fixture
def credentials_file(tmp_path: Path, s3_endpoint: str, monkeypatch) -> Path:
    """Where this process finds its credentials, and nowhere else."""
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return path


@pytest.fixture
def new_connections() -> Iterator[None]:
    """Connections made by this test, for those of others have their credentials already."""
    s3.connection.cache_clear()
    yield
    s3.connection.cache_clear()


def _write_credentials(path: Path, access_key: str) -> None:
    path.write_text(
        f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = hush-{access_key}\n"
    )


_STALE = [
    (400, "ExpiredToken"),
    (400, "ExpiredTokenException"),
    (403, "InvalidAccessKeyId"),
    (400, "TokenRefreshRequired"),
    (403, "RequestExpired"),
]


@pytest.mark.parametrize(("status", "code"), _STALE)
def test_credentials_that_expire_in_mid_run_are_picked_up_anew(
    bucket, faulty_s3, credentials_file, new_connections, status: int, code: str
) -> None:
    uris = [bucket.put(f"{number}.jpg", b"1") for number in range(20)]
    images = [ImageRef(uri) for uri in uris]
    folder = Folder(f"s3://{bucket.name}", QUICK)
    _write_credentials(credentials_file, "OLD")
    assert _kinds(images) == [b"1"] * 20

    expired = Rule(refused(status, code), when=lambda request: request.access_key == "OLD")
    faulty_s3.add(expired)
    _write_credentials(credentials_file, "NEW")
    assert _kinds(images) == [b"1"] * 20
    assert len(folder.list()) == 20
    assert faulty_s3.struck(expired) >= 1
    assert {request.access_key for request in faulty_s3.requests} == {"OLD", "NEW"}


def test_a_credentials_file_that_is_late_and_half_written_is_waited_for(
    bucket, faulty_s3, credentials_file, new_connections
) -> None:
    _write_credentials(credentials_file, "OLD")
    refuse = refused(400, "ExpiredToken")
    files = iter(["", "[default]\naws_access_key_id = NEW\n", "[defau", None])

    async def expired(request: Request, forward: Forward) -> Answer:
        text = next(files)
        if text is None:
            _write_credentials(credentials_file, "NEW")
        else:
            credentials_file.write_text(text)
        return await refuse(request, forward)

    faulty_s3.add(Rule(expired, when=lambda request: request.access_key == "OLD"))
    assert _kinds([ImageRef(bucket.put("a.jpg", b"1"))]) == [b"1"]
    assert [request.access_key for request in faulty_s3.requests] == ["OLD"] * 4 + ["NEW"]


def test_credentials_that_stay_refused_are_no_fault_of_the_image_and_are_not_told(
    bucket, faulty_s3, credentials_file, new_connections
) -> None:
    _write_credentials(credentials_file, "OLD")
    faulty_s3.add(Rule(refused(403, "InvalidAccessKeyId")))
    [image] = fetch([ImageRef(bucket.put("a.jpg", b"1"))], MAX_BYTES, QUICK)
    assert isinstance(image.body, ImageError)
    assert (str(image.body.kind), image.retries) == ("io_error", 9)
    assert "InvalidAccessKeyId" in str(image.body)
    assert "hush" not in str(image.body)


@pytest.mark.ray
def test_workers_of_ray_meet_the_faults_and_stand_them(bucket, faulty_s3, local_ray) -> None:
    uris = [bucket.put(f"{number}.jpg", b"%d" % number) for number in range(20)]
    listed = _listed(uris, parts=list(range(20)))
    failing = faulty_s3.add(Rule(slow_down, method="GET", share=0.3))
    rows = (
        ray.data.from_arrow(listed)
        .map_batches(partial(fetch_block, max_bytes=MAX_BYTES), batch_format="pyarrow")
        .take_all()
    )
    assert {row["part"]: row["data"] for row in rows} == {n: b"%d" % n for n in range(20)}
    assert sum(row["retries"] for row in rows) == faulty_s3.struck(failing) > 0
