import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.storage.lease import Lease
from pipelines.tables.audit.table import AuditConfig, RunAudit, audit_table
from pipelines.tables.compaction import CompactionConfig, compact_table
from pipelines.tables.schema import DETECTIONS, IMAGES, MANIFEST

Change = Callable[[Any], object]

COUNTS = "the record's counts are the tables'"
RECORD = "the record is readable and agrees with itself"
LINEAGE = "the record says what made the rows"
METADATA = "every file says the schema's version and its box convention"
TWINS = "every part has an images and a detections file"
BELONGS = "every file belongs to the rows of a run"
NIGHT = "date=2026-11-21/run=night"


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "table"))


def audit(table: Folder, run: str = "") -> dict[str, RunAudit]:
    return {audit.run: audit for audit in audit_table(AuditConfig(table=table.uri, run=run))}


def promises(audit: RunAudit) -> set[str]:
    return {broken.promise for broken in audit.broken}


def write_two_runs(table: Folder, labelled_run, change_rows: Change) -> None:
    """Images 4 to 7 are part 0 of the second run, 8 to 11 part 1; 8 is empty, 4 and 9 failed."""
    labelled_run("earlier", "2026-11-20").write(table)
    night = labelled_run("night", num_images=12, skipped=4)
    change_rows(night)
    night.write(table)


def image(night, number: int) -> dict:
    uri = night.manifest[number]["image_uri"]
    return next(row for row in night.images[(number - 4) // 4] if row["image_uri"] == uri)


def boxes(night, number: int) -> list[dict]:
    """One of image 6, two of image 7."""
    uri = night.manifest[number]["image_uri"]
    return [row for row in night.detections[(number - 4) // 4] if row["image_uri"] == uri]


def box_on_a_failed_image(night) -> None:
    row = boxes(night, 10)[0] | {"image_uri": night.manifest[9]["image_uri"]}
    night.detections[1].append(row)
    image(night, 9)["num_detections"] = 1
    night.record["detections"] += 1


def other_class_name(night) -> None:
    boxes(night, 6)[0]["class_name"] = "cow"


def scores_rise(night) -> None:
    first, second = boxes(night, 7)
    first["score"], second["score"] = second["score"], first["score"]


ROWS: list[tuple[str, Change, set[str]]] = [
    (
        "an image is listed once",
        lambda night: night.manifest.append(night.manifest[8]),
        {COUNTS},
    ),
    ("every row is of a listed image", lambda night: night.manifest.pop(8), {COUNTS}),
    (
        "every listed image has a row",
        lambda night: night.images[1].remove(image(night, 8)),
        {COUNTS},
    ),
    (
        "a skipped image has no row",
        lambda night: night.manifest[8].update(part=None, skipped_in="earlier"),
        {COUNTS},
    ),
    ("a row has the listed etag", lambda night: night.manifest[8].update(etag="other"), set()),
    ("a row has the listed etag", lambda night: image(night, 8).update(etag=None), set()),
    ("a row has the listed size", lambda night: image(night, 8).update(size_bytes=1), set()),
    ("a row has the listed size", lambda night: image(night, 8).update(size_bytes=None), set()),
    (
        "a row lies in the part that the manifest names",
        lambda night: night.manifest[8].update(part=0),
        set(),
    ),
    (
        "a listed image has a part or was skipped",
        lambda night: night.manifest[0].update(part=0),
        set(),
    ),
    (
        "a skipped image has its row in the run that is named",
        lambda night: night.manifest[0].update(etag="other"),
        set(),
    ),
    (
        "an image has one row",
        lambda night: night.images[1].append(image(night, 8)),
        {COUNTS},
    ),
    (
        "status and error kind agree",
        lambda night: image(night, 9).update(error_kind=None),
        {COUNTS},
    ),
    (
        "status and error kind agree",
        lambda night: image(night, 8).update(status="lost"),
        {COUNTS},
    ),
    (
        "status and error kind agree",
        lambda night: image(night, 9).update(error_kind="magic"),
        {COUNTS},
    ),
    ("a labelled image has a size", lambda night: image(night, 8).update(width=None), set()),
    ("a labelled image has a size", lambda night: image(night, 8).update(height=0), set()),
    (
        "num_detections is the number of boxes",
        lambda night: image(night, 6).update(num_detections=5),
        set(),
    ),
    ("boxes lie on labelled images", box_on_a_failed_image, set()),
    (
        "a box knows the size of its image",
        lambda night: boxes(night, 7)[0].update(image_width=641),
        set(),
    ),
    *(
        (
            "boxes lie inside their image",
            lambda night, c=corner: boxes(night, 6)[0].update(c),
            set(),
        )
        for corner in (
            {"x1": float("nan")},
            {"y2": float("inf")},
            {"x1": -0.5},
            {"y1": -0.5},
            {"x2": 640.5},
            {"y2": 480.5},
            {"x1": 640.0},
            {"y1": 400.0, "y2": 300.0},
        )
    ),
    *(
        (
            "scores from the threshold to 1",
            lambda night, s=s: boxes(night, 6)[0].update(score=s),
            set(),
        )
        for s in (float("nan"), 1.5, 0.009)
    ),
    (
        "a detection index is there once",
        lambda night: boxes(night, 7)[1].update(detection_index=0),
        set(),
    ),
    (
        "boxes are numbered from 0 without a gap",
        lambda night: boxes(night, 7)[1].update(detection_index=2),
        set(),
    ),
    (
        "boxes are numbered from 0 without a gap",
        lambda night: boxes(night, 6)[0].update(detection_index=1),
        set(),
    ),
    ("boxes are numbered by falling score", scores_rise, set()),
    ("a class has one id and one name", other_class_name, set()),
    (
        "a class has one id and one name",
        lambda night: boxes(night, 6)[0].update(class_id=7),
        set(),
    ),
    (
        COUNTS,
        lambda night: night.record.update(failed_by_kind={"corrupt": 2}),
        set(),
    ),
    (COUNTS, lambda night: night.record.update(detections=12), set()),
    (COUNTS, lambda night: night.record.update(skipped_in={"another": 4}), set()),
    (RECORD, lambda night: night.record.update(failed_by_kind={"gone": 1}), {COUNTS}),
    (RECORD, lambda night: night.record.update(skipped_in={}), {COUNTS}),
    (RECORD, lambda night: night.record.update(empty=30), {COUNTS}),
    (RECORD, lambda night: night.record.update(status="done"), set()),
    (RECORD, lambda night: night.record.update(labelled="7"), set()),
    (RECORD, lambda night: night.record.update(score_threshold=None), set()),
    (RECORD, lambda night: night.record.update(score_threshold=1.5), set()),
    (
        "listed = labelled + failed + skipped",
        lambda night: night.record.update(listed=13),
        {COUNTS},
    ),
]


@pytest.mark.parametrize(("promise", "change_rows", "follow"), ROWS)
def test_a_broken_promise_is_named_and_no_other_but_what_follows_from_it(
    table: Folder, labelled_run, promise: str, change_rows: Change, follow: set[str]
) -> None:
    write_two_runs(table, labelled_run, change_rows)
    audits = audit(table)
    assert audits["earlier"].broken == []
    assert promises(audits["night"]) == {promise} | follow


UNSAID: list[tuple[str, tuple[Any, ...]]] = [
    ("source", (None, "")),
    ("weights_uri", (None, "", 3)),
    ("weights_sha256", (None, "", "0123", "x" * 64)),
    ("preset", (None, "")),
    ("preprocessing", (None, "")),
    ("input_size", (None, [64], [0, 64], "64")),
    ("nms_threshold", (None, 1.5, float("nan"))),
    ("max_pixels", (None, 0)),
    ("max_image_bytes", (None, "many")),
    ("code_version", (None, "")),
    ("package_versions", (None, {}, {"torch": ""})),
    ("started_at", (None, "", "yesterday", "2026-11-21T01:00:00", "2026-11-21T01:00:00+02:00")),
    ("attempts", (None, 0)),
    ("finished_at", (None, "", "later")),
    ("images_per_second", (None, -1)),
    ("elapsed_seconds", (None, "long")),
    ("stage_seconds", (None, {"detect": "long"})),
]


@pytest.mark.parametrize(("name", "values"), UNSAID)
def test_what_a_record_does_not_say_of_its_rows_is_named(
    table: Folder, labelled_run, name: str, values: tuple[Any, ...]
) -> None:
    night = labelled_run()
    night.write(table)
    for value in values:
        table.write("runs/night.json", json.dumps(night.record | {name: value}).encode())
        [broken] = audit(table)["night"].broken
        assert (broken.promise, broken.what) == (LINEAGE, f"{name} is {value!r}")


def test_a_run_of_failed_images_has_no_source_and_another_detector_no_preset(
    table: Folder, labelled_run
) -> None:
    night = labelled_run()
    night.record |= {"source": "", "selection": "failed in earlier"}
    night.record |= {"preset": "", "preprocessing": "", "detector": "mine.detector:Mine"}
    night.write(table)
    assert audit(table)["night"].broken == []


def test_a_run_that_was_listed_and_not_begun_has_no_start(table: Folder, labelled_run) -> None:
    night = labelled_run(status="running")
    night.record |= {"started_at": "", "attempts": 0, "stage_seconds": {}}
    night.write(table)
    assert audit(table)["night"].broken == []
    night.record["attempts"] = 1
    night.write(table)
    [broken] = audit(table)["night"].broken
    assert (broken.promise, broken.what) == (LINEAGE, "started_at is ''")


def add_file(kind: str, schema: pa.Schema) -> Change:
    return lambda table: table.write_table(
        f"{kind}/{NIGHT}/part-00000099.parquet", schema.empty_table()
    )


def add_part(schema: pa.Schema) -> Change:
    """A part without rows, whose images file has this schema."""

    def add(table: Folder) -> None:
        add_file("images", schema)(table)
        add_file("detections", DETECTIONS)(table)

    return add


def compress_otherwise(table: Folder) -> None:
    path = Path(table.uri, f"detections/{NIGHT}/part-00000001.parquet")
    pq.write_table(pq.read_table(path, partitioning=None), path, compression="snappy")


def damage(table: Folder) -> None:
    """Flip bytes of the rows; the end of the file, which says where they are, stays."""
    name = f"detections/{NIGHT}/part-00000001.parquet"
    data = bytearray(table.read(name))
    data[4:200] = bytes(196)
    table.write(name, bytes(data))


def rename_record(table: Folder) -> None:
    record = table.read("runs/night.json")
    table.write("runs/night.json", record.replace(b'"run": "night"', b'"run": "day"'))


def leave_temporary(name: str) -> Change:
    return lambda table: Path(table.uri, name).write_bytes(b"half a file")


FILES: list[tuple[str, Change, set[str]]] = [
    (
        "every file can be read",
        lambda table: table.write(f"detections/{NIGHT}/part-00000001.parquet", b"no Parquet"),
        {COUNTS, "num_detections is the number of boxes"},
    ),
    (
        "every file can be read",
        damage,
        {COUNTS, "num_detections is the number of boxes"},
    ),
    ("every file has the columns of the schema", add_part(IMAGES.remove(1)), set()),
    (
        "every file has the columns of the schema",
        add_part(IMAGES.set(2, pa.field("size_bytes", pa.int32()))),
        set(),
    ),
    (
        METADATA,
        add_part(IMAGES.with_metadata(IMAGES.metadata | {b"schema_version": b"0"})),
        set(),
    ),
    (METADATA, add_part(IMAGES.with_metadata(IMAGES.metadata | {b"boxes": b"xywh"})), set()),
    (METADATA, add_part(IMAGES.remove_metadata()), set()),
    ("every file is compressed with zstd", compress_otherwise, set()),
    (TWINS, add_file("images", IMAGES), set()),
    (TWINS, add_file("detections", DETECTIONS), set()),
    (BELONGS, lambda table: table.write(f"images/{NIGHT}/notes.txt", b"milk"), set()),
    (
        BELONGS,
        lambda table: table.write(f"detections/{NIGHT}/compact-1-00000.parquet", b""),
        set(),
    ),
    (
        "no temporary files are left",
        leave_temporary(f"images/{NIGHT}/.part-00000001.parquet.0a.tmp"),
        set(),
    ),
    ("no temporary files are left", leave_temporary("runs/.night.json.0a.tmp"), set()),
    (RECORD, lambda table: table.write("runs/night.json", b"{"), set()),
    (RECORD, rename_record, set()),
]


@pytest.mark.parametrize(("promise", "change_files", "follow"), FILES)
def test_a_file_that_should_not_be_so_is_named(
    table: Folder, labelled_run, promise: str, change_files: Change, follow: set[str]
) -> None:
    write_two_runs(table, labelled_run, lambda night: None)
    change_files(table)
    audits = audit(table)
    assert audits["earlier"].broken == []
    assert promises(audits["night"]) == {promise} | follow


def test_a_violation_says_how_many_and_gives_an_example(table: Folder, labelled_run) -> None:
    def widen(night) -> None:
        for row in boxes(night, 7):
            row["x2"] = 999.0

    write_two_runs(table, labelled_run, widen)
    [broken] = audit(table, "night")["night"].broken
    assert (broken.count, broken.example) == (2, "s3://photos/00007.jpg")


@pytest.mark.parametrize("run", ["ghost", ""])
def test_files_without_a_record_are_named(table: Folder, labelled_run, run: str) -> None:
    labelled_run().write(table)
    folder = f"images/date=2026-11-20/run={run}/" if run else "images/"
    table.write(f"{folder}part-00000000.parquet", b"")
    audits = audit(table)
    assert audits["night"].broken == []
    assert (audits[run].status, promises(audits[run])) == ("no record", {BELONGS})
    assert list(audit(table, "night")) == ["night"]


def test_a_run_whose_images_are_being_listed_has_no_record_yet(table: Folder, labelled_run) -> None:
    labelled_run().write(table)
    labelled_run("next").write(table)
    table.delete("runs/next.json")
    with Lease.acquire(table, "next"):
        found = audit(table)["next"]
    assert (found.broken, len(found.notes)) == ([], 1)
    assert promises(audit(table)["next"]) == {BELONGS}


def test_files_under_another_date_are_named(table: Folder, labelled_run) -> None:
    labelled_run().write(table)
    table.write_table("images/date=2026-11-20/run=night/part-0.parquet", IMAGES.empty_table())
    found = [audit for audit in audit_table(AuditConfig(table=table.uri)) if audit.broken]
    assert [(audit.run, promises(audit)) for audit in found] == [("night", {BELONGS})]


@pytest.mark.parametrize("status", [None, "running"])
def test_images_skipped_in_a_run_that_is_not_complete_are_named(
    table: Folder, labelled_run, status: str | None
) -> None:
    write_two_runs(table, labelled_run, lambda night: None)
    if status:
        labelled_run("earlier", "2026-11-20", status=status).write(table)
    else:
        table.delete("runs/earlier.json")
    [broken] = audit(table)["night"].broken
    assert broken.promise == "a skipped image has its row in the run that is named"
    assert broken.count == 4


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_what_an_unfinished_run_still_owes_is_noted_at_most(
    table: Folder, labelled_run, status: str
) -> None:
    run = labelled_run(status=status)
    run.record |= {"labelled": 0, "empty": 0, "failed": 0, "failed_by_kind": {}, "detections": 0}
    del run.images[1]
    run.write(table)
    leave_temporary(f"images/{NIGHT}/.part-00000001.parquet.0a.tmp")(table)
    found = audit(table)["night"]
    assert found.broken == []
    assert found.notes == [
        "1 temporary files",
        "1 detections files without their images file",
    ]


def test_an_unfinished_run_is_held_to_what_it_has_written(table: Folder, labelled_run) -> None:
    run = labelled_run(status="running")
    run.images[1].append(run.images[0][0])
    run.write(table)
    assert "an image has one row" in promises(audit(table)["night"])


def test_the_tables_of_older_versions_are_not_held_to_parts_and_skips(
    table: Folder, labelled_run
) -> None:
    run = labelled_run()
    del run.record["skipped"], run.record["skipped_in"], run.record["parts"]
    folders = run.write(table)
    rows = [{name: row[name] for name in ("image_uri", "etag")} for row in run.manifest]
    without_parts = pa.schema(list(MANIFEST)[:4], metadata=MANIFEST.metadata)
    old_manifest = pa.Table.from_pylist(rows, schema=without_parts)
    folders.manifest.write_table("part-00000000.parquet", old_manifest)
    assert audit(table)["night"].broken == []


def test_a_good_table_in_s3_is_fine_and_a_missing_file_is_seen(bucket, labelled_run) -> None:
    table = Folder(f"s3://{bucket.name}/table")
    write_two_runs(table, labelled_run, lambda night: None)
    assert [(found.run, found.broken) for found in audit(table).values()] == [
        ("earlier", []),
        ("night", []),
    ]
    table.delete(f"detections/{NIGHT}/part-00000001.parquet")
    assert TWINS in promises(audit(table)["night"])


def test_a_compacted_table_keeps_its_promises_and_its_old_files_are_named(
    table: Folder, labelled_run
) -> None:
    write_two_runs(table, labelled_run, lambda night: None)
    part = f"images/{NIGHT}/part-00000000.parquet"
    old = table.read(part)
    list(compact_table(CompactionConfig(table=table.uri, grace_seconds=0)))
    assert [found.broken for found in audit(table).values()] == [[], []]
    table.write(part, old)
    [broken] = audit(table)["night"].broken
    assert (broken.promise, broken.count, broken.example) == (BELONGS, 1, part)


def test_a_run_that_is_compacted_during_its_audit_is_audited_again(
    table: Folder, labelled_run
) -> None:
    write_two_runs(table, labelled_run, lambda night: None)
    found, stop = [], threading.Event()

    def keep_auditing() -> None:
        while not stop.is_set():
            found.extend(audit_table(AuditConfig(table=table.uri, run="night")))

    auditor = threading.Thread(target=keep_auditing)
    auditor.start()
    for target_mb in (1, 2):
        list(compact_table(CompactionConfig(table=table.uri, grace_seconds=0, target_mb=target_mb)))
    stop.set()
    auditor.join()
    # For a moment the old files lie beside the new ones, or one is being written, which is said.
    passing = {BELONGS, "no temporary files are left"}
    assert {promise for audit in found for promise in promises(audit)} <= passing
    assert found


def test_what_a_compaction_at_work_has_lying_about_is_noted(table: Folder, labelled_run) -> None:
    labelled_run().write(table)
    newer = f"detections/{NIGHT}/compact-1-00000.parquet"
    table.write_table(newer, DETECTIONS.empty_table())
    leave_temporary(f"detections/{NIGHT}/.compact-1-00001.parquet.0a.tmp")(table)
    with Lease.acquire(table, "night"):
        found = audit(table)["night"]
    assert found.broken == []
    assert found.notes == [
        "1 temporary files",
        "1 files that the record does not name",
    ]
    assert promises(audit(table)["night"]) == {BELONGS, "no temporary files are left"}


def test_a_table_that_is_none_and_a_run_that_is_not_there_are_refused(
    table: Folder, labelled_run
) -> None:
    with pytest.raises(InputError, match="is not a table"):
        audit(table)
    labelled_run().write(table)
    with pytest.raises(InputError, match="no run 'day'"):
        audit(table, "day")
    with pytest.raises(ValueError, match="memory_mb"):
        AuditConfig(table=table.uri, memory_mb=0)
