"""export_table(): rows of a table become the files of another tool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelines import interruption
from pipelines.exports import coco, label_studio, megadetector, tabular, voc, yolo
from pipelines.exports.config import ExportConfig, FormatName
from pipelines.exports.output import Output, new_output, refuse_used
from pipelines.exports.photos import Tell, copy_photos
from pipelines.exports.selection import Counts, Selection, select
from pipelines.exports.stems import require_stems
from pipelines.storage import Folder
from pipelines.tables import spilling_connection


@dataclass(frozen=True)
class _Format:
    write: Callable[[Selection, Output], None]
    photos: str = "images"
    """The folder of the output that the photos belong in."""
    has_failures: bool = False
    """Whether it can say of an image that it failed."""
    has_names: bool = False
    """Whether it calls a photo by its path below a folder."""
    has_stems: bool = False
    """Whether it has a file for each photo, named after it."""


_FORMATS: Mapping[FormatName, _Format] = {
    "coco": _Format(coco.write_coco, has_names=True),
    "yolo": _Format(yolo.write_yolo, yolo.PHOTOS, has_stems=True),
    "voc": _Format(voc.write_voc, voc.PHOTOS, has_stems=True),
    "labelstudio": _Format(label_studio.write_label_studio),
    "megadetector": _Format(megadetector.write_megadetector, has_failures=True, has_names=True),
    "csv": _Format(tabular.write_tables, has_failures=True),
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    counts: Counts
    not_copied: int
    """Of the failed images, those that were labelled, but could not be copied."""
    archive: str
    """The deepest folder that holds all of the photos; "" where there is none."""
    photos: str
    """The folder that the format's names of photos are relative to; "" where it has whole URIs."""


def export_table(config: ExportConfig, tell: Tell = lambda seen: None) -> Exported:
    """Write an export, whole or not at all.

    Args:
        tell: is called with the number of photos that were looked at, while they are copied.

    Raises:
        InputError: there is no such table or run, the query is refused, the output is not empty or
            cannot be written, or the format has no names for these photos. Nothing is written then.
    """
    wanted = _FORMATS[config.format]
    refuse_used(config.output)
    folder = Folder(config.output).uri_of(wanted.photos)
    with spilling_connection(config.memory_mb) as connection:
        selection = select(connection, config, copies=folder if config.copy_photos else "")
        failed_before = selection.counts().failed
        if wanted.has_stems:
            require_stems(selection)
        with new_output(config.output) as output:
            if config.copy_photos:
                copy_photos(selection, output, wanted.photos, tell)
            if not wanted.has_failures:
                tabular.write_failed(selection, output)
            wanted.write(selection, output)
            interruption.check()
        counts = selection.counts()
        return Exported(
            counts,
            not_copied=counts.failed - failed_before,
            archive=selection.root,
            photos=_photos(wanted, selection, folder),
        )


def _photos(wanted: _Format, selection: Selection, folder: str) -> str:
    if selection.copies or wanted.has_stems:
        return folder
    return selection.root if wanted.has_names else ""
