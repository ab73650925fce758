from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.submission.bundle import PACKAGES, bundled


def test_the_code_travels_and_nothing_else() -> None:
    with bundled(["label", "--run", "night"], []) as bundle:
        assert {path.name for path in bundle.folder.iterdir()} == set(PACKAGES)
        assert (bundle.folder / "pipelines/labelling/run.py").is_file()
        assert not list(bundle.folder.rglob("__pycache__"))
        assert bundle.job == ["label", "--run", "night"]
        assert bundle.size_bytes < 2_000_000


@pytest.mark.parametrize("form", ["one word", "two"])
def test_a_config_travels_and_is_named_by_its_copy(form: str, tmp_path: Path) -> None:
    config = tmp_path / "night.yaml"
    config.write_text("run: night")
    words = [f"--config={config}"] if form == "one word" else ["--config", str(config)]
    with bundled(["label", *words, "--source", "data.yaml"], []) as bundle:
        assert (bundle.folder / "night.yaml").read_text() == "run: night"
        copied = ["--config=night.yaml"] if form == "one word" else ["--config", "night.yaml"]
        assert bundle.job == ["label", *copied, "--source", "data.yaml"]


def test_a_file_that_is_not_there_or_takes_a_name_of_the_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    for file, told in (("nowhere.py", "is not there"), (str(tmp_path / "jobs"), "has the name of")):
        with pytest.raises(InputError, match=told), bundled(["label"], [file]):
            pass
