"""How far the listing of a run has come, so that the next start goes on with it.

A listing of millions takes minutes. After each table of it this is written beside the files that
it became: a Parquet file of the rows that are not in a file of the manifest yet, with all counts as
its metadata. It is gone once the manifest is whole.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import Folder
from pipelines.tables import LISTED

PARTS_PER_FILE = 64
_NAME = "unfinished.parquet"


def part_file(part: int) -> str:
    """The file of a manifest that a part is in."""
    return f"part-{part // PARTS_PER_FILE:06d}.parquet"


def skipped_name(number: int) -> str:
    return f"skipped-{number:06d}.parquet"


@dataclass
class Unfinished:
    """A manifest that grows."""

    decided_by: str
    """Source, settings, size of the parts: one of something else is not gone on with."""
    last_uri: str = ""
    """Of what was listed last."""
    rows: int = 0
    """That were listed, duplicates among them."""
    listed: int = 0
    """Images."""
    left_out: Counter[str] = field(default_factory=Counter)
    skipped_in: Counter[str] = field(default_factory=Counter)
    num_parts: int = 0
    """Parts that are in a file."""
    num_skipped_files: int = 0
    waiting: pa.Table = field(default_factory=LISTED.empty_table)
    """Rows of schema.LISTED that are in none yet; the first one begins a part."""

    @classmethod
    def read(cls, folder: Folder, decided_by: str) -> Self | None:
        """What a listing left that was killed; None where there is nothing to go on with."""
        if not folder.exists(_NAME):
            return None
        table = pq.read_table(pa.BufferReader(folder.read(_NAME)))
        values: dict[str, Any] = json.loads(table.schema.metadata[b"unfinished"])
        if values["decided_by"] != decided_by:
            return None
        for name in ("left_out", "skipped_in"):
            values[name] = Counter(values[name])
        return cls(**values, waiting=table.cast(LISTED))

    def save(self, folder: Folder) -> None:
        counts = {name: value for name, value in vars(self).items() if name != "waiting"}
        metadata = {"unfinished": json.dumps(counts)}
        folder.write_table(_NAME, self.waiting.replace_schema_metadata(metadata))

    def forget(self, folder: Folder) -> None:
        if folder.exists(_NAME):
            folder.delete(_NAME)

    def delete_what_came_later(self, folder: Folder) -> None:
        """Files that were written after this; of a manifest that begins, all."""
        kept = {skipped_name(number) for number in range(self.num_skipped_files)}
        kept |= {part_file(part) for part in range(0, self.num_parts, PARTS_PER_FILE)}
        for name in folder.list():
            if name not in kept and (name != _NAME or not self.last_uri):
                folder.delete(name)
