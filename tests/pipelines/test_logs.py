import io
import json

import pytest

from pipelines.logs import JsonLines


@pytest.fixture(autouse=True)
def of_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonLines, "_run", {})


def _lines(*texts: str) -> list[dict]:
    out = io.StringIO()
    log = JsonLines(out)
    for text in texts:
        print(text, end="", file=log)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(line.pop("time").endswith("+00:00") for line in lines)
    return lines


def test_each_line_is_an_object_however_it_is_written() -> None:
    lines = _lines("error: ", "gone\nund süß\n", "\n", "[1, 2]\n", "not ended")
    assert [line["message"] for line in lines] == ["error: gone", "und süß", "[1, 2]"]


def test_lines_are_of_the_run_that_an_object_has_named() -> None:
    lines = _lines("begin\n", '{"run": "night", "part": 3}\n', "end\n")
    assert lines == [
        {"message": "begin"},
        {"run": "night", "part": 3},
        {"run": "night", "message": "end"},
    ]
