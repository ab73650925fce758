"""AP of the official nano weights in the device's precision, beside float32 on the cores."""

from collections.abc import Iterator

from benchmarks.on_gpu.sizes import Result, Sizes, Skipped
from pipelines import cluster
from pipelines.datasets import read_coco
from pipelines.detectors import TORCH, DetectorSettings
from pipelines.training import validate

SIDE = 416


def measure(sizes: Sizes) -> Iterator[Result]:
    """Both by torch, so that nothing differs but the precision and whose kernels they are."""
    photos, weights = sizes.shared / "data/coco_val79", sizes.shared / "weights/yolox_nano_coco.pth"
    for path in (photos, weights):
        if not path.exists():
            raise Skipped(f"{path} is not there: give the folder that holds it as --shared")
    truth = read_coco(str(photos / "instances.json"), str(photos / "images"))
    truth = truth.slice(0, sizes.validated_photos)
    aps = {}
    for device in dict.fromkeys(("cpu", sizes.device)):
        evaluation = validate(weights.read_bytes(), truth, _settings(device)).evaluation
        aps[device] = evaluation.ap or 0.0
        yield {
            "device": device,
            "photos": evaluation.images,
            "ap": evaluation.ap,
            "ap50": evaluation.ap50,
        }
    yield {"ap_lost": round(aps["cpu"] - aps[sizes.device], 5)}


def _settings(device: str) -> DetectorSettings:
    """Those of an official evaluation."""
    return DetectorSettings(
        input_size=(SIDE, SIDE),
        score_threshold=0.01,
        nms_threshold=0.65,
        max_pixels=10**8,
        batch_size=16,
        threads=cluster.usable_cores(),
        device=device,
        runtime=TORCH,
    )
