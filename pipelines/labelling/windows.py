"""The parts enter the graph a window at a time, so that Ray Data holds few of them at any moment.

It keeps tens of kB of the driver's memory for a part that waits between two stages, four for one
that is yet to come, and three for one that is done. So a read task stands for a window of parts, no
window is read while the graph has parts enough, and what is kept of parts that are done is dropped.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.resource_budget_backpressure_policy import (
    ResourceBudgetBackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata

FEWEST_PARTS = 256
PARTS_PER_ACTOR = 8
"""Of a window: an actor has two to four at hand, as many are fetched or written meanwhile."""


def parts_per_window(num_actors: int) -> int:
    """As many as keep the actors busy until the next window is read."""
    return max(FEWEST_PARTS, PARTS_PER_ACTOR * num_actors)


def read_in_windows(parts: Sequence[int], parts_per_window: int) -> ray.data.Dataset:
    """The numbers of the parts, each a block of its own with one row `part`."""
    source = _Windows(parts, parts_per_window)
    dataset: ray.data.Dataset = ray.data.read_datasource(
        source,
        # In all; so what a task reads is cut into as many as a window has parts.
        override_num_blocks=len(source.windows) * parts_per_window,
        concurrency=1,
        num_cpus=0,  # it takes no time, and not every node has a core to spare
    )
    return dataset


def bound(context: ray.data.DataContext, parts_per_window: int) -> None:
    """Have a graph that begins with `read_in_windows` hold less than two windows at any time."""
    context._max_num_blocks_in_streaming_gen_buffer = parts_per_window  # read at once, not by twos
    made_by: Any = [partial(_FewParts, parts_per_window)]
    context.custom_execution_callback_classes = made_by
    policies = [
        _BudgetsThatLetTheLastStageRun if policy is ResourceBudgetBackpressurePolicy else policy
        for policy in ENABLED_BACKPRESSURE_POLICIES
    ]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)


class _Windows(ray.data.Datasource):
    def __init__(self, parts: Sequence[int], parts_per_window: int) -> None:
        starts = range(0, len(parts), parts_per_window)
        self.windows = [parts[start : start + parts_per_window] for start in starts]

    def get_read_tasks(self, *args: Any, **kwargs: Any) -> list[ray.data.ReadTask]:
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ray.data.ReadTask(partial(_read, window), metadata) for window in self.windows]

    def estimate_inmemory_data_size(self) -> None:
        """Ray Data would have it, and does without."""


def _read(window: Sequence[int]) -> Iterable[pa.Table]:
    return [pa.table({"part": window})]


class _FewParts(ExecutionCallback):
    """Has no further window read while the graph holds as many parts as one, and keeps no others.

    Not a backpressure policy: Ray Data passes over those when nothing runs, as while a run waits
    for its detectors.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts

    def before_execution_starts(self, executor: Any) -> None:
        _, source, *_, sink = executor._topology

        def has_room() -> bool:
            came, went = source.metrics.num_task_outputs_generated, sink.metrics.num_outputs_taken
            return bool(came - went < self._parts)

        source.can_add_input = has_room

    def on_execution_step(self, executor: Any) -> None:
        """Drop what is kept of every block for a report at the end, for which nobody asks."""
        for op in executor._topology:
            for blocks in op.get_stats().values():
                blocks.clear()


class _BudgetsThatLetTheLastStageRun(ResourceBudgetBackpressurePolicy):
    """Ray Data's budgets, by which on few cores nothing is written before all is fetched.

    It loses fractions of a core when it adds up what there is, and the last stage comes last.
    """

    def can_add_input(self, op: Any) -> bool:
        is_idle_end = not op.output_dependencies and not op.num_active_tasks()
        return is_idle_end or super().can_add_input(op)
