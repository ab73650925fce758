"""OnnxRuntime: YOLOX by ONNX Runtime, on a CPU and without torch."""

from collections.abc import Callable
from functools import partial

from pipelines.detectors.contract import DetectorSettings
from pipelines.detectors.runtimes.contract import CPU_BATCH_SIZE, Found, new_canvases
from pipelines.detectors.runtimes.onnx_file import facts_of
from pipelines.detectors.runtimes.ort import open_session, refuse_memory_error
from pipelines.detectors.runtimes.postprocess import Floats, postprocess_arrays
from pipelines.photos import Pixels


class OnnxRuntime:
    """Reads what `export_checkpoint` wrote with raw outputs."""

    def __init__(self, weights: bytes, settings: DetectorSettings) -> None:
        self._settings = settings
        self.batch_size = settings.batch_size or CPU_BATCH_SIZE
        self._session = open_session(weights, settings.threads)
        [self._input] = self._session.get_inputs()
        facts = facts_of(self._session)
        self.class_names = facts.class_names
        self.preprocessing = facts.preprocessing

    def new_canvases(self) -> Pixels:
        return new_canvases(self.batch_size, self._settings)

    def begin(self, canvases: Pixels) -> Callable[[], list[Found | None]]:
        return partial(self._detect, canvases)

    def _detect(self, canvases: Pixels) -> list[Found | None]:
        # One image for each thread: of more at once the features leave the caches. Sixteen of
        # 416 px took 1.4 times as long as one after the other.
        at_once = self._settings.threads
        thresholds = self._settings.score_threshold, self._settings.nms_threshold
        return [
            found
            for start in range(0, len(canvases), at_once)
            for found in postprocess_arrays(
                self._raw(canvases[start : start + at_once]), *thresholds
            )
        ]

    def _raw(self, canvases: Pixels) -> list[Floats]:
        """One (B, 5 + C, h, w) per level."""
        try:
            raw: list[Floats] = self._session.run(None, {self._input.name: canvases})
        except Exception as error:
            refuse_memory_error(error)
            raise
        return raw
