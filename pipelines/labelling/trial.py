"""try_out(): a run on a sample of its source, of which nothing is written but what it took.

The source is listed to its end, a few hundred images of it, drawn by chance, go through the same
graph as those of a run, and the estimate is made of how they went.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import cluster, interruption, storage
from pipelines.errors import InputError, StalledError
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.estimate import Estimate, Found, Trial, estimate
from pipelines.labelling.fetching import fetch_block
from pipelines.labelling.listing import Listing
from pipelines.labelling.model import Model, read_model
from pipelines.labelling.progress import LabellingProgress, ListingProgress
from pipelines.labelling.run import look_at_what_was_given
from pipelines.labelling.settling import settled
from pipelines.labelling.watchdog import watched
from pipelines.labelling.writing import Part, write_part
from pipelines.planning import ActorPlan
from pipelines.storage import Folder
from pipelines.tables import LISTED, MANIFEST, Ledger, open_runs, runs

SAMPLE = 200
_PARTS_PER_ACTOR = 2
"""Of the sample: the first one of each, in which all warms up, does not count."""
_FEWEST_IMAGES = 50
"""Of a part: a detector that is asked about few at a time waits more than it works."""
_SEED = 0


def try_out(config: LabellingConfig) -> Estimate:
    """What `label_images` would take: with the cluster as it is, and with `num_actors`.

    Raises:
        InputError: something that was given cannot be used.
        RunStoppedError: the sample cannot be labelled now.
    """
    began = time.monotonic() - time.process_time()  # which is what the imports took
    table = Folder(config.table)
    listing, weights = look_at_what_was_given(config, table)
    model = read_model(config, weights)
    found = _find(config, listing, model, table)
    if not found.images:
        raise InputError(f"source={config.source!r}: every image of it is labelled already")
    is_guest = cluster.is_connected()
    plan = _plan_of_what_is_there(config)
    trial = _label(config, model, found, plan, began)
    trial = replace(trial, leaving_s=0.0 if is_guest else _leave())
    wanted = [plan.num_actors, *([config.num_actors] if config.num_actors else [])]
    return estimate(
        found,
        trial,
        config.images_per_part,
        list(dict.fromkeys(wanted)),
        reads_s3=storage.is_s3(found.sample["image_uri"][0].as_py()),
        writes_s3=storage.is_s3(table.uri),
    )


def _plan_of_what_is_there(config: LabellingConfig) -> ActorPlan:
    """All that the cluster holds now; where that is nothing yet, as many as are asked for."""
    try:
        return cluster.plan(None, config.gpus_per_actor, min_actors=1)
    except InputError:
        return cluster.plan(config.num_actors, config.gpus_per_actor, config.min_actors)


def _leave() -> float:
    """Leave Ray, as the command would at its end; the seconds that it takes."""
    started = time.monotonic()
    cluster.disconnect()
    return time.monotonic() - started


def _find(config: LabellingConfig, listing: Listing, model: Model, table: Folder) -> Found:
    earlier = runs.labelled_alike(table, model.settings) if config.incremental else []
    views = open_runs(table.uri, earlier) if earlier else None
    tables = settled(listing, views) if listing.may_repeat or views else listing.tables
    images = skipped = size_bytes = 0
    draw = _Draw(SAMPLE)
    with ListingProgress() as progress:
        for listed in tables:
            interruption.check()
            new = _new(listed)
            images, skipped = images + len(new), skipped + len(listed) - len(new)
            size_bytes += pc.sum(new["size_bytes"]).as_py() or 0
            draw.add(new)
            left_out = sum(listing.left_out.values())
            progress.update(images, left_out, listed["image_uri"][-1].as_py())
    return Found(
        images=images,
        skipped=skipped,
        left_out=dict(listing.left_out),
        size_bytes=size_bytes,
        sample=draw.drawn,
    )


def _new(listed: pa.Table) -> pa.Table:
    if "skipped_in" in listed.column_names:
        listed = listed.filter(pc.is_null(listed["skipped_in"]))
    return listed.select(LISTED.names).cast(LISTED)


class _Draw:
    """Some rows out of all, each as likely as any other, however many there are."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._random = random.Random(_SEED)
        self._lots: list[float] = []
        self.drawn: pa.Table = LISTED.empty_table()

    def add(self, rows: pa.Table) -> None:
        lots = [*self._lots, *(self._random.random() for _ in range(len(rows)))]
        kept = sorted(sorted(range(len(lots)), key=lots.__getitem__)[: self._size])
        self._lots = [lots[row] for row in kept]
        self.drawn = pa.concat_tables([self.drawn, rows]).take(pa.array(kept, pa.int64()))


@dataclass(frozen=True)
class _NoFolder:
    """Takes tables and forgets them."""

    def write_table(self, name: str, table: pa.Table) -> int:
        return len(storage.to_parquet(table))


@dataclass(frozen=True)
class _NoFolders:
    images: _NoFolder = field(default_factory=_NoFolder)
    detections: _NoFolder = field(default_factory=_NoFolder)


@dataclass(frozen=True)
class _Parts:
    """The sample in parts, as the fetch stage reads those of a manifest."""

    ref: Any
    size: int

    def __call__(self, part: int) -> pa.Table:
        import ray

        rows = ray.get(self.ref).slice(part * self.size, self.size)
        rows = rows.append_column("part", pa.array([part] * len(rows), pa.int32()))
        return rows.append_column("skipped_in", pa.nulls(len(rows), pa.string())).cast(MANIFEST)


def _label(
    config: LabellingConfig, model: Model, found: Found, plan: ActorPlan, began: float
) -> Trial:
    # Here, since they import Ray: a second that a mistake need not wait.
    import ray

    from pipelines.labelling.graph import Stages, labelled_parts
    from pipelines.labelling.monitor import start_monitor

    sample, monitor = found.sample, start_monitor()
    plan, size = _in_small(plan, len(sample))
    stages = Stages.of(
        config,
        model,
        plan,
        monitor,
        fetch=partial(fetch_block, max_bytes=config.max_image_bytes),
        read=_Parts(ray.put(sample), size),
        write=partial(write_part, folders=_NoFolders()),
    )
    numbers = range(-(-len(sample) // size))
    with LabellingProgress("dry run", Ledger(len(sample))) as progress:
        check = _checks(config, plan, monitor, progress)
        parts, ledger = list[Part](), Ledger(len(sample))
        first_part_s = 0.0
        for part in watched(labelled_parts(numbers, stages, plan), check):
            interruption.check()
            first_part_s = first_part_s or time.monotonic() - began
            ledger += part.ledger
            progress.update(ledger, part)
            parts.append(part)
    return Trial(plan=plan, parts=parts, first_part_s=first_part_s, leaving_s=0.0)


def _in_small(plan: ActorPlan, images: int) -> tuple[ActorPlan, int]:
    """The actors that a sample keeps busy, and the images of a part."""
    busy = max(1, min(plan.num_actors, images // (_FEWEST_IMAGES * _PARTS_PER_ACTOR)))
    size = max(_FEWEST_IMAGES, images // (busy * _PARTS_PER_ACTOR))
    return replace(plan, num_actors=busy, min_actors=1), size


def _checks(
    config: LabellingConfig, plan: ActorPlan, monitor: Any, progress: LabellingProgress
) -> Callable[[float], None]:
    from pipelines.labelling.metrics import LabellingMetrics
    from pipelines.labelling.waiting import DetectorWatch

    metrics = LabellingMetrics("dry run", Ledger(SAMPLE))
    detectors = DetectorWatch(plan, monitor, config.wait_timeout, progress.say, metrics)

    def check(seconds_without_a_part: float) -> None:
        interruption.check()
        if detectors.are_enough() and seconds_without_a_part >= config.stall_timeout:
            raise StalledError(f"nothing has moved for {config.stall_timeout:.0f} s")

    return check
