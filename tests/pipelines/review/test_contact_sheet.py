import numpy as np

from pipelines.review.contact_sheet import Picture, class_colour, contact_sheet, draw_boxes

BLACK = np.zeros((100, 200, 3), np.uint8)


def test_a_box_is_framed_in_its_class_colour_and_the_photo_is_left_alone() -> None:
    drawn = draw_boxes(BLACK, np.array([[50.0, 40.0, 90.0, 80.0]]), ["star 0.93"], [3])
    red, green, blue = class_colour(3)
    for y, x in [(79, 70), (60, 50), (60, 89)]:  # the lower, left and right edge
        assert drawn[y, x].tolist() == [blue, green, red]
    assert drawn[60, 70].tolist() == [0, 0, 0]
    assert drawn[60, 90].tolist() == [0, 0, 0]
    assert not BLACK.any()


def test_boxes_outside_the_image_and_of_no_size_are_drawn_without_complaint() -> None:
    boxes_xyxy = np.array([[-20.0, -20.0, 500.0, 500.0], [30.2, 30.2, 30.2, 30.2]])
    assert draw_boxes(BLACK, boxes_xyxy, ["", "a label wider than the image " * 9], [0, 1]).any()


def test_a_sheet_has_a_row_for_every_few_pictures() -> None:
    pictures = [Picture("a.jpg", "no objects", BLACK)] * 5
    one_row = contact_sheet(pictures[:3], [], columns=3, cell_size=(50, 80))
    two_rows = contact_sheet(pictures, [], columns=3, cell_size=(50, 80))
    assert one_row.shape[1] == two_rows.shape[1] >= 3 * 80
    assert two_rows.shape[0] - one_row.shape[0] > 50


def test_boxes_follow_their_photo_into_the_cell() -> None:
    box = np.array([[0.0, 0.0, 200.0, 100.0]])  # the whole photo
    picture = Picture("a.jpg", "1 object", BLACK, box, ["cat"], [0])
    sheet = contact_sheet([picture], ["cat"], columns=1, cell_size=(50, 100))
    red, green, blue = class_colour(0)
    framed = (sheet == [blue, green, red]).all(axis=2)
    lower_edge = np.flatnonzero(framed.sum(axis=1) == 100)[-1]
    assert sheet[lower_edge + 1].min() > 200  # the paper below a photo that fills its cell


def test_a_failed_picture_is_a_grey_cell_that_names_the_error() -> None:
    sheet = contact_sheet([Picture("a.jpg", "truncated")], [], columns=1, cell_size=(60, 120))
    unnamed = contact_sheet([Picture("a.jpg", "")], [], columns=1, cell_size=(60, 120))
    assert (sheet == 205).all(axis=2).sum() > 60 * 120 * 0.8
    assert (sheet != unnamed).any()


def test_no_pictures_make_an_empty_sheet() -> None:
    assert contact_sheet([], ["cat"]).shape[2] == 3
