import pytest

from pipelines.datasets.formats.splits import chosen
from pipelines.errors import InputError


@pytest.mark.parametrize(
    ("wanted", "known", "names"),
    [
        (["train"], ["train", "val"], ["train"]),
        (["val"], ["train", "valid"], ["valid"]),
        (["valid"], ["Train", "Validation"], ["Validation"]),
        (["train"], ["train2017", "val2017"], ["train2017"]),
        (["val", "train"], ["train", "val"], ["val", "train"]),
        (["fold2"], ["fold1", "fold2"], ["fold2"]),
        (["train"], ["train", "train2017"], ["train"]),
        ([], ["default"], ["default"]),
    ],
)
def test_a_split_is_what_the_source_calls_it(
    wanted: list[str], known: list[str], names: list[str]
) -> None:
    assert chosen("here", wanted, known) == names


@pytest.mark.parametrize(
    ("wanted", "known", "named"),
    [
        (["fold3"], ["fold1"], r"split='fold3': here does not name it, it has \['fold1'\]"),
        (["val"], ["val2014", "val2017"], r"it has \['val2014', 'val2017'\]"),
        ([], ["train", "val"], r"has the splits \['train', 'val'\]: name one"),
        ([], [], r"has the splits \[\]"),
    ],
)
def test_a_split_that_may_be_any_or_none_is_refused(
    wanted: list[str], known: list[str], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        chosen("here", wanted, known)
