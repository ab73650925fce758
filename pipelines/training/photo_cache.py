"""Photos as a training fetches them: from S3 once, and then from this machine's disk.

A kept photo is known by its URI and its ETag: that of the training table, or else the one that its
first fetch by this process was answered with. So a photo stays the same as long as a process lives,
kept or not: another one at its URI is `changed`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pipelines.photos import Fetched, ImageError, ImageRef, fetch
from pipelines.storage import is_s3, normalise_uri, user_cache, why
from pipelines.training.disk_cache import DiskCache

Fetch = Callable[[Sequence[ImageRef], int], list[Fetched]]
"""From images, and the bytes that a file may have, to what came of each: as photos.fetch."""

_READERS = 8


def open_photo_cache(cache_dir: str | None, max_disk_bytes: int | None) -> "PhotoCache":
    """That of this machine, as TrainingConfig describes it."""
    if max_disk_bytes == 0:
        return PhotoCache(None)
    try:
        folder = Path(normalise_uri(cache_dir)) if cache_dir else user_cache() / "photos"
    except RuntimeError:  # without a home
        return PhotoCache(None)
    return PhotoCache(DiskCache(folder, max_disk_bytes))


class PhotoCache:
    """Fetches photos, and keeps those of S3; what lies on a disk anyway is read from there.

    A disk that is full, or cannot be written, is told of once; then nothing more is kept.
    """

    def __init__(self, disk: DiskCache | None) -> None:
        self._disk = disk
        self._keeps = disk is not None
        self._etags: dict[str, str] = {}
        self._notes: list[str] = []
        self._changed: list[str] = []
        self._pool = ThreadPoolExecutor(_READERS)

    def fetch(self, images: Sequence[ImageRef], max_bytes: int) -> list[Fetched]:
        """What came of every image, in the order given; several threads may ask."""
        images = [replace(i, etag=i.etag or self._etags.get(i.uri)) for i in images]
        kept = self._pool.map(self._kept, images)
        found = {image: of_disk for image, of_disk in zip(images, kept, strict=True) if of_disk}
        missing = [image for image in images if image not in found]
        for image, fetched in zip(missing, fetch(missing, max_bytes), strict=True):
            found[image] = fetched
            if not isinstance(fetched.body, ImageError):
                self._learn(image, fetched.body, fetched.etag)
        return [found[image] for image in images]

    def take_notes(self) -> list[str]:
        """What is to be told of, since they were taken the last time."""
        notes, self._notes = self._notes, []
        changed, self._changed = self._changed, []
        if changed:
            notes.append(
                f"warning: {len(changed)} photos are not those that an earlier start has kept, for "
                f"example {changed[0]}: this one learns from what is there now, for its table has "
                "no ETags"
            )
        return notes

    def _kept(self, image: ImageRef) -> Fetched | None:
        if image.etag is None or self._disk is None or not is_s3(image.uri):
            return None
        etag, body = _parts(self._disk.get(image.uri))
        return Fetched(body, etag) if etag == image.etag else None

    def _learn(self, image: ImageRef, body: bytes, etag: str | None) -> None:
        """Remember the ETag of a photo that was fetched, and keep what is on S3."""
        if etag is None:
            return
        if image.etag is None:
            self._etags[image.uri] = etag
        if self._disk is None or not is_s3(image.uri):
            return
        etag_kept = "" if image.etag else _parts(self._disk.get(image.uri))[0]
        if etag_kept not in ("", etag):
            self._changed.append(image.uri)
        if self._keeps and etag_kept != etag:
            self._keep(self._disk, image.uri, b"%s\n%s" % (etag.encode(), body))

    def _keep(self, disk: DiskCache, uri: str, file: bytes) -> None:
        try:
            self._keeps = disk.put(uri, file)
            reason = "what --max_disk_bytes allows is taken"
        except OSError as error:
            self._keeps = False
            reason = why(error)
        if not self._keeps:
            self._notes.append(
                f"warning: further photos are not kept in {disk.folder} ({reason}), and are "
                "fetched in every epoch"
            )


def _parts(file: bytes | None) -> tuple[str, bytes]:
    """ETag and body of a kept photo."""
    etag, _, body = (file or b"").partition(b"\n")
    return etag.decode(), body
