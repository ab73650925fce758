"""What each stage of a run is doing, for whoever wants to know why nothing comes out."""

import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Monitor:
    """The parts that each stage has in hand. Lives in a Ray actor that the stages tell."""

    def __init__(self) -> None:
        self._in_hand: dict[tuple[str, int], tuple[float, str]] = {}
        self._furthest: dict[tuple[str, int], int] = {}
        """Images that are done of a part that is in hand."""
        self._finished: dict[str, tuple[float, int]] = {}
        self._detectors: dict[str | None, str] = {}
        """The node of each that has loaded its model, by its actor."""
        self._last_sign = time.monotonic()

    def detector_started(self, actor: str | None, node: str) -> None:
        self._detectors[actor] = node
        self.sign()

    def detectors_on(self, nodes: Collection[str]) -> int:
        """How many have loaded their model on these nodes."""
        return sum(node in nodes for node in self._detectors.values())

    def begin(self, stage: str, part: int, process: str) -> None:
        """A part that is begun again, since whoever had it has died, is no sign of progress."""
        if (stage, part) not in self._in_hand:
            self.sign()
        self._in_hand[stage, part] = (time.monotonic(), process)

    def go_on(self, stage: str, part: int, images: int) -> None:
        """So many images are done of a part that is in hand."""
        if images > self._furthest.get((stage, part), 0):
            self._furthest[stage, part] = images
            self.sign()

    def end(self, stage: str, part: int) -> None:
        self._in_hand.pop((stage, part), None)
        self._furthest.pop((stage, part), None)
        _, count = self._finished.get(stage, (0.0, 0))
        self._finished[stage] = (self.sign(), count + 1)

    def seconds_since_a_sign(self) -> float:
        return time.monotonic() - self._last_sign

    def report(self, stages: tuple[str, ...]) -> list[str]:
        """A line for each stage: what it has in hand and for how long, or when it last had."""
        return [f"{stage}: {self._report(stage)}" for stage in stages]

    def sign(self) -> float:
        """Something moves."""
        self._last_sign = time.monotonic()
        return self._last_sign

    def _report(self, stage: str) -> str:
        now = time.monotonic()
        working = [
            f"part {part} for {now - since:.0f} s ({process})"
            for (of_stage, part), (since, process) in sorted(self._in_hand.items())
            if of_stage == stage
        ]
        if working:
            return ", ".join(working)
        if stage not in self._finished:
            return "has not begun"
        last, count = self._finished[stage]
        return f"idle for {now - last:.0f} s, after {count} parts"


def start_monitor() -> Any:
    """A Monitor in an actor of this run's own, on the driver's node."""
    here = ray.get_runtime_context().get_node_id()  # which ends the run anyway if it goes
    actor: Any = ray.remote(Monitor)
    return actor.options(
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        # Its calls, a dozen for each part, are not worth an entry each in Ray's list of tasks.
        enable_task_events=False,
    ).remote()


@contextmanager
def in_hand(monitor: Any, stage: str, part: int) -> Iterator[None]:
    """Tell the actor that a part is being worked on, and when it no longer is.

    After an error it stays in hand: that is where the run hangs, if the task is tried again.
    """
    monitor.begin.remote(stage, part, f"{socket.gethostname()}, process {os.getpid()}")
    yield
    monitor.end.remote(stage, part)
