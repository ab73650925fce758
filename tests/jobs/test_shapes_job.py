import pytest

from jobs.shapes import ShapesConfig


def test_shapes_are_generated_on_a_disk_only() -> None:
    with pytest.raises(ValueError, match="output='s3://b/x': must be a local folder"):
        ShapesConfig(output="s3://b/x")
