"""What an attempt at a run has come to, as the run's record is told from time to time."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace

from pipelines.labelling.writing import Part
from pipelines.tables import Commits, Ledger, RunRecord, parts_of, ranges_of, read_ledger

BETWEEN_RECORDS_S = 60.0
"""A start after a kill reads the rows of the parts that came out since."""


@dataclass
class Effort:
    """The ledger of a run so far, and what this attempt at it has cost."""

    record: RunRecord
    """As the attempt began."""
    ledger: Ledger
    counted: set[int]
    """The parts that the ledger's counts are of."""
    started: float = field(default_factory=time.monotonic)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    told: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, record: RunRecord) -> "Effort":
        """Of an attempt that begins."""
        return cls(record, record.ledger, parts_of(record.counted_parts))

    def count(self, commits: Commits) -> None:
        """Count the parts that are written; of most of them the record knows."""
        written = commits.parts()
        if not self.counted or self.counted - written:
            self.ledger, self.counted = self.ledger.to_begin_with, set()
        self.ledger = read_ledger(commits.folders, written - self.counted, self.ledger)
        self.counted = written

    def add(self, part: Part) -> None:
        self.ledger += part.ledger
        self.counted.add(part.number)
        self.stage_seconds.update(part.stage_seconds)
        self.retries += part.retries

    def is_to_be_told(self) -> bool:
        """Whether it is time to write the record; asked once, it is not for a while."""
        is_due = time.monotonic() - self.told >= BETWEEN_RECORDS_S
        if is_due:
            self.told = time.monotonic()
        return is_due

    def in_record(self) -> RunRecord:
        record = self.record
        return replace(
            record,
            ledger=self.ledger,
            counted_parts=ranges_of(self.counted),
            elapsed_seconds=record.elapsed_seconds + time.monotonic() - self.started,
            stage_seconds=dict(Counter(record.stage_seconds) + self.stage_seconds),
            retries=record.retries + self.retries,
        )
