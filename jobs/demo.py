"""The whole path on one machine: an archive in S3, labelled, looked at, corrected, learnt from.

Generates photo-like images of shapes, serves them from a local S3 server, labels them with a small
checkpoint that this project trained, and shows what the tables hold. Then a script plays somebody
who corrects some photos; the checkpoint is trained on them, labels again, and a page shows what
changed. Everything it makes lies in .demo/; running it again shows the resume.
"""

import logging
import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import botocore.session
import cv2
import pyarrow as pa
import pyarrow.dataset as pads

from jobs import label
from jobs.cli import exit_on_input_error
from jobs.demo_correcting import MIN_SCORE, correct_and_train
from jobs.evaluate import print_evaluation
from jobs.printing import print_table
from pipelines import cluster, datasets, evaluation, labelling, review, tables

FOLDER = Path(".demo")
CHECKPOINT = Path(__file__).parent.parent / "assets/shapes/shapes_nano.pth"
BUCKET = "demo-photos"
SOURCE = f"s3://{BUCKET}/2026/"
NUM_IMAGES = 400
NUM_BROKEN = 15
SEED = 0
"""Not one of the seeds that the checkpoint was trained and validated on."""

CLASSES_SQL = f"""
    SELECT class_name, count(*) AS detections, count(DISTINCT image_uri) AS images,
           avg(score) AS mean_score
    FROM detections WHERE score >= {MIN_SCORE} GROUP BY class_name ORDER BY detections DESC
"""


@exit_on_input_error
def main() -> None:
    ArgumentParser(prog="python -m jobs.demo", description=__doc__).parse_args()
    started = time.monotonic()
    print(f"archive: {NUM_IMAGES} images and {NUM_BROKEN} broken files in {_archive()}")
    with _s3_server() as endpoint:
        print(f"served from {endpoint} as {SOURCE}\n")
        config = labelling.LabellingConfig(
            source=SOURCE,
            table=str(FOLDER / "table"),
            checkpoint=str(CHECKPOINT),
            run="demo",
            images_per_part=64,
        )
        print(label.report(labelling.label_images(config)), end="\n\n")
        views = tables.open_table(config.table)
        print_table(
            tables.run_query(views, CLASSES_SQL), f"Seen with a score of {MIN_SCORE} or more"
        )
        truth, _ = datasets.read_training_table(str(_archive() / "truth.parquet"))
        _print_accuracy(views, truth)
        print(f"\ncontact sheet: {_write_contact_sheet(views, config)}")
        print("\nFrom now on, a ring is to be called a circle")
        correct_and_train(config, truth, FOLDER)
    print(f"tables: {config.table}; {time.monotonic() - started:.0f} s in all")


def _archive() -> Path:
    """The folder of the generated archive; made on the first call, its truth last."""
    folder = FOLDER / "archive"
    if not (folder / "truth.parquet").exists():
        truth = datasets.generate_archive(folder, NUM_IMAGES, SEED, SOURCE, NUM_BROKEN)
        datasets.write_training_table(str(folder / "truth.parquet"), truth)
    return folder


@contextmanager
def _s3_server() -> Iterator[str]:
    """An S3 server that holds the archive, which the standard AWS variables point to."""
    from moto.server import ThreadedMotoServer  # here, for --help need not wait for it

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it prints a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket=BUCKET)
        prefix = SOURCE.removeprefix(f"s3://{BUCKET}/")
        for path in sorted((_archive() / "images").iterdir()):
            client.put_object(Bucket=BUCKET, Key=f"{prefix}{path.name}", Body=path.read_bytes())
        yield os.environ["AWS_ENDPOINT_URL"]
    finally:
        server.stop()


def _print_accuracy(views: "tables.Views", truth: pa.Table) -> None:
    labelled = views.images.to_table(["image_uri"], filter=pads.field("status") == tables.LABELLED)
    detections = views.detections.to_table()
    result = evaluation.evaluate(detections, truth, labelled["image_uri"].to_pylist())
    print_evaluation(result, "Accuracy against the known truth")


def _write_contact_sheet(views: "tables.Views", config: "labelling.LabellingConfig") -> Path:
    uris = [*_some_images(views, tables.LABELLED, 14), *_some_images(views, tables.FAILED, 2)]
    pictures = review.pictures_of(views, uris, MIN_SCORE, config.max_image_bytes, config.max_pixels)
    path = FOLDER / "contact_sheet.png"
    cv2.imwrite(str(path), review.contact_sheet(pictures, datasets.CLASS_NAMES))
    return path


def _some_images(views: "tables.Views", status: str, count: int) -> list[str]:
    sql = f"SELECT image_uri FROM images WHERE status = '{status}' ORDER BY hash(image_uri)"
    uris: list[str] = tables.run_query(views, f"{sql} LIMIT {count}")["image_uri"].to_pylist()
    return uris


if __name__ == "__main__":
    main()
    cluster.leave_local()
