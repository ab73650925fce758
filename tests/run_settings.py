"""Settings of a run, for tests in which it matters only whether two runs have the same."""

from pipelines.tables.runs import RunSettings

SETTINGS = RunSettings(
    source="s3://b/photos/",
    weights_sha256="ab" * 32,
    preset="nano",
    preprocessing="official",
    input_size=(416, 416),
    score_threshold=0.01,
    nms_threshold=0.65,
    max_pixels=100,
    max_image_bytes=100,
)
