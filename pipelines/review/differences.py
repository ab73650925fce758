"""The photos on which two runs differ most, with what was lost, new and matched on each."""

from typing import Any

from pipelines.comparison import Comparison
from pipelines.review.sample import BoxKind, Row, Sample, images_named
from pipelines.tables import Views, query_run, run_query

KINDS = (
    BoxKind("lost", dashes="3 4", of_run=False),
    BoxKind("new", dashes="14 5"),
    BoxKind("matched", agrees=True),
)


def changed_photos(compared: Comparison, most: int) -> Sample:
    """Those with most new and lost boxes, to be reviewed as photos of the run `after`.

    Raises:
        InputError: the table cannot be read any more.
    """
    config = compared.config
    uris = compared.most_changed(most)["image_uri"].to_pylist()
    class_names = compared.classes()["class_name"].to_pylist()
    images, of_run = query_run(
        config.after_table or config.table,
        config.after,
        lambda views: (images_named(views, uris), _class_names(views)),
    )
    return Sample(
        images=images,
        boxes=_boxes(compared, uris, class_names),
        class_names=class_names,
        num_images=compared.counts().changed,
        of_what=f"changes from run {config.before} to run {config.after}",
        kinds=KINDS,
        foreign_classes=set(class_names) - of_run,
    )


def _class_names(views: Views) -> set[str]:
    """Of the run, whatever the scores."""
    return set(run_query(views, "SELECT DISTINCT class_name FROM detections")[0].to_pylist())


def _boxes(compared: Comparison, uris: list[str], class_names: list[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {uri: [] for uri in uris}
    for change in compared.changes_on(uris).to_pylist():
        found[change["image_uri"]].append(_box(change, class_names))
    for boxes in found.values():
        boxes.sort(key=lambda box: -box["score"])
    return found


def _box(change: dict[str, Any], class_names: list[str]) -> Row:
    """As the run `after` has it, or as `before` had it if it was lost."""
    side = "before" if change["change"] == "lost" else "after"
    return {
        **{name: change[f"{side}_{name}"] for name in ("x1", "y1", "x2", "y2", "score")},
        "class_id": class_names.index(change["class_name"]),
        "kind": change["change"],
        "was": change["before_score"],
    }
