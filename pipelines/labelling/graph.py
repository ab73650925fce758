"""The graph that Ray Data runs: the parts that are left go through fetch, detect and write.

    part numbers ──► fetch bytes ──► detector actors ──► write a part ──► a summary row per part

A block is a part from end to end: what a task does again, it does to the same images and files.
JPEG bytes travel between the stages and pixels do not. No stage raises for one bad image, since Ray
would drop its whole block: a failure is a row that the later stages pass on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import ray.data

from pipelines.detectors import IN_FLIGHT, ONNXRUNTIME, DetectorSettings
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.fetching import Fetch
from pipelines.labelling.model import Model, made_ready
from pipelines.labelling.stages import (
    DetectStage,
    KeptBytes,
    Read,
    Write,
    fetch_stage,
    write_stage,
)
from pipelines.labelling.windows import bound, parts_per_window, read_in_windows
from pipelines.labelling.writing import Part
from pipelines.planning import ActorPlan

FETCH_CPUS = 0.25
WRITE_CPUS = 0.25
"""Both wait for the network most of the time."""

ACTOR_STARTS_IN_VAIN = 3
"""In a row: a node can go while a model is loaded, but a model that never loads is at fault."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What the three stages are given."""

    fetch: Fetch
    detector: str
    """yolox, or package.module:Class."""
    weights: KeptBytes
    settings: DetectorSettings
    image_timeout_s: float
    read: Read
    """The images of a part."""
    write: Write
    """What becomes of them, and a summary."""
    monitor: Any
    """The actor that is told what is being worked on."""

    @classmethod
    def of(
        cls,
        config: LabellingConfig,
        model: Model,
        plan: ActorPlan,
        monitor: Any,
        *,
        fetch: Fetch,
        read: Read,
        write: Write,
    ) -> Self:
        """As a run is configured, for the machines that it has; raises as made_ready does."""
        model = made_ready(model, plan)
        runtime = model.settings.runtime
        settings = DetectorSettings(
            input_size=model.settings.input_size,
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_pixels=config.max_pixels,
            batch_size=config.batch_size,
            threads=1,  # until an actor knows its node
            device="cuda" if plan.gpus and runtime != ONNXRUNTIME else "cpu",
            runtime=runtime,
            full_decode=model.settings.full_decode,
            truncated=model.settings.truncated,
        )
        return cls(
            fetch=fetch,
            detector=config.detector,
            weights=KeptBytes.of(model.weights),
            settings=settings,
            image_timeout_s=config.image_timeout,
            read=read,
            write=write,
            monitor=monitor,
        )


def labelled_parts(remaining: Sequence[int], stages: Stages, plan: ActorPlan) -> Iterator[Part]:
    """Run the graph; a summary for each part that has come to its end."""
    if not remaining:
        return
    window = parts_per_window(plan.num_actors)
    with ray.data.DataContext.current(_context(window)):
        graph = _graph(remaining, window, stages, plan)
    for row in graph.iter_rows():
        yield Part.from_row(row)


def _context(window: int) -> ray.data.DataContext:
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = None  # a block is a part, however large
    context.max_consecutive_actor_init_deaths = ACTOR_STARTS_IN_VAIN
    context.execution_no_progress_timeout_s = -1  # never: Ray would not see a slow part go on
    bound(context, window)
    return context


def _pool(num_actors: int) -> ray.data.ActorPoolStrategy:
    """Actors that have as many parts in hand as their detectors may be asked about at once."""
    return ray.data.ActorPoolStrategy(
        size=num_actors,
        max_concurrent_calls_per_actor=IN_FLIGHT,
        enable_true_multi_threading=True,
        max_tasks_in_flight_per_actor=IN_FLIGHT + 1,
    )


def _graph(
    remaining: Sequence[int], window: int, stages: Stages, plan: ActorPlan
) -> ray.data.Dataset:
    whole_blocks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    return (
        read_in_windows(remaining, window)
        .map_batches(
            partial(fetch_stage, read=stages.read, fetch=stages.fetch, monitor=stages.monitor),
            num_cpus=FETCH_CPUS,
            **whole_blocks,
        )
        # Not map_batches(), which wants a batch size beside GPUs and then joins blocks to reach it.
        .map_batches_internal(
            DetectStage,
            fn_constructor_kwargs={
                "detector": stages.detector,
                "weights": stages.weights,
                "settings": stages.settings,
                "plan": plan,
                "image_timeout_s": stages.image_timeout_s,
                "monitor": stages.monitor,
            },
            compute=_pool(min(plan.num_actors, len(remaining))),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            **whole_blocks,
        )
        .map_batches(
            partial(write_stage, write=stages.write, monitor=stages.monitor),
            num_cpus=WRITE_CPUS,
            **whole_blocks,
        )
    )
