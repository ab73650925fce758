"""An epoch of a training, as it is told of."""

from pipelines.training.metrics import EpochRow

ROW = EpochRow(
    epoch=1,
    loss=6.5,
    loss_iou=2.5,
    loss_objectness=3.0,
    loss_class=1.0,
    loss_l1=0.0,
    num_foreground=120.0,
    learning_rate=0.01,
    seconds=60.0,
    images_per_second=100.0,
    wait_share=0.02,
    validation_seconds=3.0,
    gpu_memory_gb=12.5,
    skipped_steps=0,
    broken_images=1,
    ap=None,
    ap50=None,
)
