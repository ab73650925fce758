r"""Make a training table of the annotations you have, or of what jobs.label found.

python -m jobs.prepare --source instances.json --images photos --output train.parquet
python -m jobs.prepare --source VOC2012 --split train --output train.parquet
python -m jobs.prepare --source data.yaml --split train --output train.parquet
python -m jobs.prepare --source my_export --output train.parquet
python -m jobs.prepare --source s3://bucket/labels --min_score 0.7 --output train.parquet
python -m jobs.prepare --source labels --corrections corrections.json --only_reviewed \
    --output train.parquet

It reads COCO (Roboflow's and CVAT's too), Pascal VOC (labelImg), YOLO (data.yaml, CVAT's obj.data,
Label Studio's classes.txt; predictions and poses), Label Studio's JSON and MegaDetector's.

What cannot be used is left out of the table and listed: boxes outside their image or without area,
classes that nobody named, photos that are not there, what stands twice, what cannot be read. An
image goes with an annotation that could not be read, for the model would learn that nothing is
there. Boxes that reach beyond their image are clipped to it. The first faults of each kind are
shown, and all of them written to <output>.faults.csv. Exit code 2: nothing was written.
"""

from collections.abc import Sequence

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse
from jobs.printing import print_table
from pipelines import datasets

FAULTS_SHOWN = 20
"""Of each kind."""


@exit_on_input_error
def main() -> None:
    config = parse(datasets.PrepareConfig, __doc__)
    prepared = datasets.prepare(config)
    classes = per_class(prepared.table)
    print_table(classes, "Classes", max_rows=len(classes))
    print_faults(prepared.faults)
    for note in prepared.notes:
        print(f"note: {note}")
    if prepared.faults:
        print(f"every fault with its place: {prepared.faults_uri}")
    print(f"{summary(prepared)}: {config.output}")


def per_class(table: pa.Table) -> pa.Table:
    """Boxes of each class, crowds apart, and the images that show one; 0 for an empty class."""
    boxes, crowds, images = ([0] * len(datasets.class_names_of(table)) for _ in range(3))
    for row in table.select(["class_ids", "is_crowd"]).to_pylist():
        for class_id, is_crowd in zip(row["class_ids"], row["is_crowd"], strict=True):
            (crowds if is_crowd else boxes)[class_id] += 1
        for class_id in set(row["class_ids"]):
            images[class_id] += 1
    columns = {"class": pa.array(datasets.class_names_of(table), pa.string())}
    return pa.table(columns | {"boxes": boxes, "crowds": crowds, "images": images})


def print_faults(faults: "Sequence[datasets.Fault]") -> None:
    """Print how many there are of each kind, and the first ones with their places."""
    for kind in datasets.FaultKind:
        found = [fault for fault in faults if fault.kind is kind]
        if found:
            columns = {"where": [fault.where for fault in found], "what": list(map(str, found))}
            fate = "kept up to the edge" if kind is datasets.FaultKind.CLIPPED else "left out"
            title = f"{kind}: {len(found):,}, {fate}"
            print_table(pa.table(columns), title, max_rows=FAULTS_SHOWN)


def summary(prepared: "datasets.Prepared") -> str:
    """All of it in one line."""
    is_crowd = prepared.table["is_crowd"].to_pylist()
    boxes = [crowds.count(False) for crowds in is_crowd]
    return (
        f"{len(boxes):,} images, {boxes.count(0):,} of them without boxes; {sum(boxes):,} boxes "
        f"and {sum(map(sum, is_crowd)):,} crowds; {len(prepared.faults):,} faults"
    )


if __name__ == "__main__":
    main()
