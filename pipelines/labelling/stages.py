"""What Ray runs of a labelling run: a part is fetched, looked at, written; each says what it does.

No torch in here: the detector has a process of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import pyarrow as pa
import ray

from pipelines import cluster
from pipelines.detectors import DetectorSettings, IsolatedDetector
from pipelines.errors import stopped_by_storage
from pipelines.labelling.detecting import detect_block
from pipelines.labelling.fetching import Fetch
from pipelines.labelling.monitor import in_hand
from pipelines.planning import ActorPlan
from pipelines.storage import STORAGE_ERRORS

STAGES = ("fetch", "detect", "write")

IMAGES_AT_ONCE = {"cuda": 256, "cpu": 64}
"""That a detector is asked about: it may decode them all before it looks at the first. After each
there is a sign of life, and a core may need several seconds for an image."""


Read = Callable[[int], pa.Table]
"""From the number of a part to its rows of schema.MANIFEST."""
Write = Callable[[pa.Table], pa.Table]
"""From blocks.DETECTED to the one row that writing.Part reads."""


def fetch_stage(parts: pa.Table, read: Read, fetch: Fetch, monitor: Any) -> pa.Table:
    """From the number of one part to blocks.FETCHED."""
    [part] = parts["part"].to_pylist()
    with in_hand(monitor, "fetch", part):
        with _storage_errors_told():
            listed = read(part)
        rows = pa.array([len(listed)] * len(listed), pa.int32())
        return fetch(listed.append_column("part_rows", rows))


@dataclass(frozen=True)
class KeptBytes:
    """What the driver keeps for actors that are started, and started again.

    By a reference that is inside of something. What Ray sees as an argument of an actor lies on
    the node that made it, and an actor that outlives the argument cannot be started again.
    """

    ref: "ray.ObjectRef[bytes]"

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(ray.put(data))


class DetectStage:
    """From blocks.FETCHED to blocks.DETECTED; holds a detector that an image may kill."""

    def __init__(
        self,
        detector: str,
        weights: KeptBytes,
        settings: DetectorSettings,
        plan: ActorPlan,
        image_timeout_s: float,
        monitor: Any,
    ) -> None:
        """Load the model; what it raises is IsolatedDetector's."""
        node_id, node = cluster.this_node()
        settings = replace(settings, threads=plan.threads_on(node))
        self._detector = IsolatedDetector(
            detector,
            ray.get(weights.ref),
            settings,
            image_timeout_s,
            on_death=lambda: monitor.sign.remote(),
        )
        self._images_at_once = IMAGES_AT_ONCE[settings.device]
        self._monitor = monitor
        monitor.detector_started.remote(ray.get_runtime_context().get_actor_id(), node_id)

    def __call__(self, fetched: pa.Table) -> pa.Table:
        detected = []
        part = fetched["part"][0].as_py()
        with in_hand(self._monitor, "detect", part):
            for start in range(0, len(fetched), self._images_at_once):
                images = fetched.slice(start, self._images_at_once)
                detected.append(detect_block(self._detector, images))
                self._monitor.go_on.remote("detect", part, start + len(images))
        return pa.concat_tables(detected).unify_dictionaries()


def write_stage(detected: pa.Table, write: Write, monitor: Any) -> pa.Table:
    """From blocks.DETECTED to the one row that writing.Part reads."""
    with in_hand(monitor, "write", detected["part"][0].as_py()), _storage_errors_told():
        return write(detected)


@contextmanager
def _storage_errors_told() -> Iterator[None]:
    """Make the storage's errors a sentence: of an error's cause, Ray gives the driver the text."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise stopped_by_storage(error) from error
