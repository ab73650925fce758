"""Wait for detectors that a cluster has no room for yet, and say so."""

import time
from collections.abc import Callable
from typing import Any

import ray

from pipelines.cluster import SECONDS_BETWEEN_LINES
from pipelines.errors import ClusterTooSmallError
from pipelines.labelling.metrics import LabellingMetrics
from pipelines.planning import ActorPlan

_LOOK_EVERY_S = 2.0


class DetectorWatch:
    """Knows how many detectors of a run have loaded their model, tells of it, and gives up."""

    def __init__(
        self,
        plan: ActorPlan,
        monitor: Any,
        timeout_s: float,
        say: Callable[[str], None],
        metrics: LabellingMetrics,
    ) -> None:
        self._metrics = metrics
        self._plan, self._monitor, self._timeout_s, self._say = plan, monitor, timeout_s, say
        self._enough_at = self._told_at = self._looked_at = time.monotonic()
        self._were_all_there = False
        self._running = 0

    def are_enough(self) -> bool:
        """Whether at least `min_actors` run.

        Raises:
            ClusterTooSmallError: there were fewer for `timeout_s`.
        """
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look()
        if self._running >= self._plan.min_actors:
            self._enough_at = now
        if now - self._enough_at >= self._timeout_s:
            raise ClusterTooSmallError(
                f"{self._state()} after {self._timeout_s:.0f} s: look whether the cluster can get "
                "such nodes now, ask for fewer with --num_actors, or wait longer with "
                "--wait_timeout"
            )
        return self._running >= self._plan.min_actors

    def _look(self) -> None:
        alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        self._running = ray.get(self._monitor.detectors_on.remote(alive))
        self._metrics.set_detectors(self._running)
        self._were_all_there |= self._running >= self._plan.num_actors
        # A pool that has had all of its actors gives some back when there is little left to do.
        waits = self._running < self._plan.min_actors or not self._were_all_there
        if waits and self._looked_at - self._told_at >= SECONDS_BETWEEN_LINES:
            self._told_at = self._looked_at
            self._say(f"waiting for {self._state()}")

    def _state(self) -> str:
        what = "GPUs" if self._plan.gpus else "CPUs"
        return f"{what}: {self._running} of {self._plan.num_actors} actors run"
