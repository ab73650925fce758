"""Rows of training tables, for tests."""


def row(image_uri: str, boxes: list[list[float]], class_ids: list[int], **changes: object) -> dict:
    """An image of 32 x 32 px with its boxes."""
    values = {
        "image_uri": image_uri,
        "width": 32,
        "height": 32,
        "boxes": boxes,
        "class_ids": class_ids,
        "is_crowd": [False] * len(boxes),
        "areas": [100.0] * len(boxes),
    }
    return values | changes
