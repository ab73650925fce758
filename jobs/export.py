r"""Hand what a run found to other tools: COCO, YOLO, VOC, Label Studio, MegaDetector, CSV.

yolox-ray export --table s3://bucket/labels --format coco --output s3://bucket/for_fiftyone
yolox-ray export --table labels --format yolo --min_score 0.5 --copy_photos --output dogs \
    --sql "SELECT * FROM latest_detections WHERE class_name = 'dog'"

What is exported is one run, or what a query names. All boxes of the images that it names:
    SELECT image_uri, run FROM latest_detections WHERE class_name = 'dog'
With a column detection_index the boxes that it names, here nothing but dogs:
    SELECT * FROM latest_detections WHERE class_name = 'dog'
Where that is null, an image is named without any: SELECT l.image_uri, l.run, d.detection_index FROM
    latest l LEFT JOIN (FROM latest_detections WHERE class_name = 'dog') d USING (image_uri, run)

coco          instances.json: boxes, scores and sizes to the last bit, URIs as coco_url.
megadetector  megadetector.json, version 1.6: boxes in shares, sizes, and why an image failed. Lost:
              URIs, for names are relative to the folder of the photos.
labelstudio   tasks-*.json, whose predictions have boxes in percents, and label_config.xml. Local
              photos need LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/ there.
yolo          labels/, train.txt and data.yaml, with boxes in shares. Lost: scores, sizes, URIs.
voc           Annotations/ and ImageSets/Main/trainval.txt. Lost: scores. Corners keep
              fractions, and a box is a pixel wide and high at least.
csv           images.csv and detections.csv, all columns of the tables. Lost: nothing.

All but csv lose ETags, times and the ids of classes: all classes that the runs have found are
numbered anew, in the detector's order. An image without boxes is there as one, in yolo with an
empty file. A failed image is there as one in megadetector and csv; beside the others it stands in
failed.csv. Boxes are those of the photo after EXIF orientation.

The output is a folder, which is there whole or not at all. On S3 what was written is deleted if an
export fails; one that is killed may leave files, which make no data set.

Exit code 0: written; 2: something given cannot be used; 130 and 143: stopped by Ctrl-C and
SIGTERM. Whenever it is not 0, nothing was written.
"""

import sys
from collections.abc import Callable

from jobs.cli import exit_on_input_error, parse
from jobs.leaving import stopped_with_a_code
from pipelines import exports


@exit_on_input_error
def main() -> None:
    config = parse(exports.ExportConfig, __doc__)
    with stopped_with_a_code(": nothing was written"):
        exported = exports.export_table(config, _progress())
    print(f"{_summary(exported)}: {config.output}")
    if exported.not_copied:
        print(f"{exported.not_copied:,} photos could not be copied, and count as failed images")
    if exported.photos:
        print(f"names of photos are relative to {exported.photos}")
    if config.format in ("yolo", "voc") and not config.copy_photos:
        print(f"which is not there: link or copy {exported.archive} to it")


def _summary(exported: "exports.Exported") -> str:
    counts = exported.counts
    return (
        f"{counts.photos - counts.failed:,} images, {counts.empty:,} of them without boxes; "
        f"{counts.boxes:,} boxes; {counts.failed:,} failed images"
    )


def _progress() -> Callable[[int], None]:
    """Tells of 1,000 photos, and whenever they have doubled."""
    due = 1_000

    def tell(seen: int) -> None:
        nonlocal due
        if seen >= due:
            print(f"{seen:,} photos copied", file=sys.stderr, flush=True)
            due = 2 * seen

    return tell


if __name__ == "__main__":
    main()
