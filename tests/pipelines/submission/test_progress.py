import io

from rich.console import Console

from pipelines.submission.progress import JobProgress

LOG = """Running [red]entrypoint[/red]
{"run": "night", "done": 60, "to_do": 100, "failed": 4, "images_per_second": 0.5, "eta_seconds": 80}
{"run": "night", "part": 3}
run night: complete
"""


def _shown(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, legacy_windows=False)
    with JobProgress(console) as progress:
        for letter in LOG:  # however it comes
            progress.show(letter)
        progress.show("not ended")
    return out.getvalue()


def test_without_a_terminal_a_log_is_shown_to_the_letter() -> None:
    assert _shown(terminal=False) == LOG + "not ended\n"


def test_on_a_terminal_progress_is_a_bar_and_all_else_goes_by() -> None:
    shown = _shown(terminal=True)
    assert "60/100" in shown
    assert "0.5 images/s, 0:01:20 left, 4 failed" in shown
    for line in ("[red]entrypoint[/red]", '{"run": "night", "part": 3}', "run night: complete"):
        assert line in shown
    assert "eta_seconds" not in shown
