"""A picture of one augmented batch with its boxes, to be looked at before hours of training."""

import cv2
import torch

from pipelines.photos import Pixels
from pipelines.review import Picture, contact_sheet
from pipelines.storage import write_bytes
from pipelines.training.augmenter import BatchAugmenter
from pipelines.training.config import TrainingConfig
from pipelines.training.data import read_training_data, read_weights
from pipelines.training.loader import BatchLoader, epoch_rows
from pipelines.training.worker import start_model
from yolox_core import cxcywh_to_xyxy

MAX_IMAGES = 16


def draw_preview(config: TrainingConfig) -> Pixels:
    """What the model would be shown, as a contact sheet (H, W, 3) uint8 BGR.

    Raises:
        InputError: something that was given cannot be used.
    """
    data = read_training_data(config.train, config.val)
    weights = read_weights(config.initial_weights)
    _, preprocessing, _ = start_model(config, weights, data.class_names)
    loader = BatchLoader(
        data.train, config.canvas_size, preprocessing, max_cache_bytes=0, threads=2
    )
    batch_size = min(MAX_IMAGES, config.batch_size)
    rows = epoch_rows(len(data.train), batch_size, seed=config.seed, epoch=0, rank=0, world_size=1)
    earlier, batch = loader.load(rows[0].tolist()), loader.load(rows[-1].tolist())
    augmenter = BatchAugmenter(config, preprocessing)
    augmenter.remember(earlier)
    canvases, targets = augmenter.augmented(batch, 0, combine=True)
    pictures = [
        _picture(uri, canvas.numpy(), of_image[of_image[:, 3] > 0], data.class_names)
        for uri, canvas, of_image in zip(batch.uris, canvases, targets, strict=True)
    ]
    return contact_sheet(pictures, data.class_names)


def write_preview(config: TrainingConfig, path: str) -> None:
    """Write the picture as a PNG file."""
    _, png = cv2.imencode(".png", draw_preview(config))
    write_bytes(path, png.tobytes())


def _picture(
    uri: str, canvas: Pixels, targets: torch.Tensor, class_names: tuple[str, ...]
) -> Picture:
    class_ids = targets[:, 0].int().tolist()
    return Picture(
        caption=uri.rpartition("/")[2],
        note=f"{len(targets)} targets",
        image_bgr=canvas,
        boxes_xyxy=cxcywh_to_xyxy(targets[:, 1:]).numpy(),
        labels=[class_names[class_id] for class_id in class_ids],
        class_ids=class_ids,
    )
