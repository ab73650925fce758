"""A graph over windows of parts in a real Ray, whose last stage is slower than its first."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data
from ray.data.block import BlockStats

from pipelines.labelling.windows import bound, parts_per_window, read_in_windows

pytestmark = pytest.mark.ray

PARTS, WINDOW = 100, 8
WHOLE: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}


def _begin(parts: pa.Table) -> pa.Table:
    assert len(parts) == 1  # a part is a block of its own
    return parts.append_column("begun", pa.array([time.time()]))


def _end(parts: pa.Table) -> pa.Table:
    time.sleep(0.02)
    return parts.append_column("ended", pa.array([time.time()]))


def _context() -> ray.data.DataContext:
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = None
    bound(context, WINDOW)
    return context


def _rows() -> Iterator[dict[str, Any]]:
    with ray.data.DataContext.current(_context()):
        begun = read_in_windows(range(PARTS), WINDOW).map_batches(_begin, **WHOLE, num_cpus=0.25)
        ended = begun.map_batches(_end, **WHOLE, num_cpus=0.5)
    yield from ended.iter_rows()


def test_every_part_comes_once_and_the_graph_never_holds_two_windows_of_them(local_ray) -> None:
    rows = sorted(_rows(), key=lambda row: row["part"])
    assert [row["part"] for row in rows] == list(range(PARTS))
    for row in rows:
        entered = WINDOW * (row["part"] // WINDOW + 1)  # those of its window come with it
        left = sum(other["ended"] < row["begun"] for other in rows)
        assert entered - left < 2 * WINDOW


class _NeedsGpu:
    def __call__(self, parts: pa.Table) -> pa.Table:
        return parts


def test_no_further_window_is_read_while_the_run_waits_for_its_detectors(
    tmp_path: Path, local_ray
) -> None:
    def begin(parts: pa.Table) -> pa.Table:
        (tmp_path / str(parts["part"][0])).touch()
        return parts

    context = _context()
    context.execution_no_progress_timeout_s = 5
    with ray.data.DataContext.current(context):
        begun = read_in_windows(range(PARTS), WINDOW).map_batches(begin, **WHOLE, num_cpus=0.25)
        pool = ray.data.ActorPoolStrategy(size=1)
        waiting = begun.map_batches_internal(_NeedsGpu, compute=pool, **WHOLE, num_gpus=1)
        written = waiting.map_batches(_end, **WHOLE, num_cpus=0.5)
    with pytest.raises(Exception, match="progress"):
        list(written.iter_rows())
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(WINDOW))


def test_nothing_is_kept_of_the_parts_that_are_done(local_ray) -> None:
    rows = _rows()
    kept = [sum(type(held) is BlockStats for held in gc.get_objects()) for _ in rows]
    assert len(kept) == PARTS
    assert max(kept) < 4 * WINDOW


def test_a_window_keeps_all_actors_of_a_large_cluster_busy() -> None:
    assert parts_per_window(2) == 256
    assert parts_per_window(1000) == 8000
