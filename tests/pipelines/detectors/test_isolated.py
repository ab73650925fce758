import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.detectors import child as a_child
from pipelines.detectors import isolated as isolation
from pipelines.detectors.contract import YOLOX, DetectorSettings, LabelledImage
from pipelines.detectors.isolated import IsolatedDetector
from pipelines.detectors.yolox import YoloxDetector
from pipelines.errors import InputError
from pipelines.photos.errors import ErrorKind, ImageError
from tests.stand_in import SLOW_S, found_in

ROOT = Path(__file__).parents[3]
STAND_IN = "tests.stand_in:StandIn"
FRAGILE = "tests.stand_in:Fragile"
READING_AHEAD = "tests.stand_in:ReadingAhead"


@pytest.fixture(scope="module")
def stand_in(settings: DetectorSettings) -> Iterator[IsolatedDetector]:
    with closing(IsolatedDetector(STAND_IN, b"", settings)) as detector:
        yield detector


def _bodies(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def _assert_same(answer: LabelledImage | ImageError, expected: LabelledImage) -> None:
    assert isinstance(answer, LabelledImage)
    np.testing.assert_array_equal(answer.boxes_xyxy, expected.boxes_xyxy)
    np.testing.assert_array_equal(answer.scores, expected.scores)
    np.testing.assert_array_equal(answer.class_ids, expected.class_ids)


def _children(pid: int) -> list[int]:
    """A process's children that are a fork server, or were forked by one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # "pid (name) state ppid …"; the name may hold anything.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == pid and state != "Z" and b"pipelines.detectors.fork_server" in command:
            found.append(int(folder.name))
    return found


def _family() -> tuple[int, int]:
    """The fork server and the child of the one detector that this process has."""
    [server] = _children(os.getpid())
    [child] = _children(server)
    return server, child


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("position", [0, 1, 31, 32, 63])
@pytest.mark.parametrize(
    ("poison", "kind", "cause"),
    [
        (b"CRASH", ErrorKind.CRASHED, "SIGSEGV"),
        (b"EXIT", ErrorKind.CRASHED, "exit code 1"),
        (b"OOM", ErrorKind.OUT_OF_MEMORY, "SIGKILL"),
        (b"HUGE", ErrorKind.OUT_OF_MEMORY, "SIGKILL"),
        (b"FAIL", ErrorKind.CRASHED, "exit code 1"),
    ],
)
def test_poison_costs_exactly_its_own_row(
    stand_in: IsolatedDetector, position: int, poison: bytes, kind: ErrorKind, cause: str
) -> None:
    bodies = _bodies(64)
    bodies[position] = poison
    answers = list(stand_in(bodies))
    assert len(answers) == 64
    error = answers.pop(position)
    assert isinstance(error, ImageError)
    assert (error.kind, str(error)) == (kind, f"the detector's process died over it: {cause}")
    for answer, body in zip(answers, bodies[:position] + bodies[position + 1 :], strict=True):
        _assert_same(answer, found_in(body))


def test_each_of_several_poisons_costs_its_own_row(stand_in: IsolatedDetector) -> None:
    bodies = _bodies(64)
    poisons = {0: b"OOM 0", 1: b"CRASH 1", 30: b"CRASH 30", 31: b"OOM 31", 62: b"CRASH 62"}
    for position, poison in poisons.items():
        bodies[position] = poison
    answers = stand_in(bodies)
    failed = {row: a.kind for row, a in enumerate(answers) if isinstance(a, ImageError)}
    assert failed == {
        row: ErrorKind.OUT_OF_MEMORY if poison.startswith(b"OOM") else ErrorKind.CRASHED
        for row, poison in poisons.items()
    }


@pytest.mark.parametrize("number", range(4))
def test_poison_in_one_of_two_questions_costs_the_other_nothing(
    stand_in: IsolatedDetector, number: int
) -> None:
    questions = [_bodies(8), [b"1%d" % row for row in range(8)], [b"SLOW"], _bodies(3)]
    questions[number] = [*questions[number][:-1], b"CRASH"]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(stand_in, questions))
    assert [answer.kind for answer in answers[number][-1:]] == [ErrorKind.CRASHED]
    for asked, told in zip(questions, answers, strict=True):
        for body, answer in zip(asked, told, strict=True):
            if body != b"CRASH":
                _assert_same(answer, found_in(body))


def test_one_question_is_prepared_while_another_is_answered(settings: DetectorSettings) -> None:
    reading_ahead = IsolatedDetector(READING_AHEAD, b"", settings)
    with closing(reading_ahead) as detector, ThreadPoolExecutor(1) as thread:
        slow = thread.submit(detector, [b"SLOW"] * 5)
        time.sleep(SLOW_S)
        detector(_bodies(3))
        [answer, *_] = slow.result()
    assert answer.width - 1 == 3  # had been prepared


def test_an_answer_says_what_it_took_without_what_was_asked_before_it(
    stand_in: IsolatedDetector,
) -> None:
    slow, quick = [b"SLOW"] * 5, _bodies(1)
    with ThreadPoolExecutor(1) as thread:
        of_slow = thread.submit(stand_in.ask, slow)
        time.sleep(SLOW_S)
        of_quick = stand_in.ask(quick)
    assert of_slow.result().seconds > 5 * SLOW_S > of_quick.seconds


def test_nothing_but_poison_gives_nothing_but_rows(stand_in: IsolatedDetector) -> None:
    kinds = [answer.kind for answer in stand_in([b"CRASH %d" % number for number in range(8)])]
    assert kinds == [ErrorKind.CRASHED] * 8


def test_no_images_are_no_answers(stand_in: IsolatedDetector) -> None:
    assert stand_in([]) == []


def test_empty_and_large_files_arrive_as_they_are(stand_in: IsolatedDetector) -> None:
    bodies = [b"", os.urandom(50_000_000), b"", os.urandom(1)]
    for answer, body in zip(stand_in(bodies), bodies, strict=True):
        _assert_same(answer, found_in(body))


@pytest.mark.parametrize("victim", ["child", "fork server", "idle child"])
def test_a_kill_from_outside_costs_no_row(stand_in: IsolatedDetector, victim: str) -> None:
    rng = random.Random(victim)
    bodies = [b"SLOW %d" % number for number in range(4)]
    for _ in range(3):
        server, child = _family()
        pid = server if victim == "fork server" else child
        killer = threading.Timer(rng.uniform(0, 0.3), os.kill, (pid, signal.SIGKILL))
        killer.start()
        if victim == "idle child":
            killer.join()
        for answer, body in zip(stand_in(bodies), bodies, strict=True):
            _assert_same(answer, found_in(body))
        assert not _is_alive(child)


@pytest.mark.parametrize(
    ("body", "raised"),
    [
        (b"RAISE", (RuntimeError, "DetectorBugError: a bug")),
        (b"REFUSE", (PermissionError, "a bug")),
    ],
)
def test_an_exception_is_raised_here_with_its_traceback_and_costs_no_process(
    stand_in: IsolatedDetector, body: bytes, raised: tuple[type[Exception], str]
) -> None:
    before = _family()
    with pytest.raises(raised[0], match=raised[1]) as caught:
        stand_in([b"0", body])
    assert "stand_in.py" in caught.value.__notes__[0]
    _assert_same(stand_in([b"0"])[0], found_in(b"0"))
    assert _family() == before


def test_an_interrupted_call_does_not_answer_the_next_one(stand_in: IsolatedDetector) -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        stand_in([b"SLOW %d" % number for number in range(6)])
    _assert_same(stand_in([b"0"])[0], found_in(b"0"))


def test_what_the_constructor_raises_is_raised_here(settings: DetectorSettings) -> None:
    with pytest.raises(RuntimeError, match="DetectorBugError: a bug") as caught:
        IsolatedDetector(FRAGILE, b"RAISE", settings)
    assert "stand_in.py" in caught.value.__notes__[0]
    with pytest.raises(InputError, match="No module named"):
        IsolatedDetector("no.such.module:Detector", b"", settings)


def test_a_detector_that_dies_whenever_it_is_constructed_is_given_up(
    settings: DetectorSettings,
) -> None:
    with pytest.raises(RuntimeError, match=r"Fragile: .* died 3 times in a row .* SIGSEGV"):
        IsolatedDetector(FRAGILE, b"CRASH", settings)


def test_a_detector_that_dies_whatever_it_is_asked_is_given_up(
    stand_in: IsolatedDetector, monkeypatch
) -> None:
    monkeypatch.setattr(isolation, "_MAX_FUTILE_DEATHS", 10)
    with pytest.raises(RuntimeError, match=r"died 11 times without an answer .* SIGSEGV"):
        stand_in([b"CRASH"] * 64)


def test_nothing_outlives_a_killed_parent_even_amid_a_computation() -> None:
    code = (
        "from pipelines.detectors.isolated import IsolatedDetector\n"
        f"IsolatedDetector({STAND_IN!r}, b'', None)([b'HANG'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    _wait_for(lambda: [_children(pid) for pid in _children(parent.pid)] > [[]], "no child started")
    time.sleep(1)  # until it hangs
    [server] = _children(parent.pid)
    [child] = _children(server)
    parent.kill()
    parent.wait()
    _wait_for(lambda: not _is_alive(server) and not _is_alive(child), "an orphan lives on")


def test_our_detector_gives_the_same_answers_isolated_and_not(
    tiny_checkpoint: bytes, settings: DetectorSettings
) -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (60, 40 + 10 * i, 3), np.uint8) for i in range(5)]
    bodies = [cv2.imencode(".jpg", photo)[1].tobytes() for photo in photos]
    expected = YoloxDetector(tiny_checkpoint, settings)(bodies)
    with closing(IsolatedDetector(YOLOX, tiny_checkpoint, settings)) as detector:
        assert tuple(detector.class_names) == ("cat", "dog", "bird")
        for answer, image in zip(detector([*bodies, b"<html>"]), expected, strict=False):
            _assert_same(answer, image)


def test_a_damaged_png_that_crashes_the_decoder_of_a_users_detector_costs_one_row(
    settings: DetectorSettings,
) -> None:
    png = cv2.imencode(".png", np.full((48, 64, 3), 7, np.uint8))[1].tobytes()
    checksum = png.index(b"IEND") - 8
    damaged = png[:checksum] + bytes([png[checksum] ^ 0xFF]) + png[checksum + 1 :]
    name = "tests.torchvision_detector:Detector"
    with closing(IsolatedDetector(name, b"", settings)) as detector:
        first, second, third = detector([png, damaged, png])
    assert (first.width, first.height) == (third.width, third.height) == (64, 48)
    assert (second.kind, str(second)[-7:]) == (ErrorKind.CRASHED, "SIGSEGV")


def test_an_image_that_never_ends_costs_one_row_and_the_others_are_answered(
    settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_SLOWEST_S", 0.1)
    deaths: list[None] = []
    bodies = [*_bodies(3), b"HANG", b"4"]
    with closing(
        IsolatedDetector(STAND_IN, b"", settings, 0.5, lambda: deaths.append(None))
    ) as detector:
        answers = detector(bodies)
    for number in (0, 1, 2, 4):
        _assert_same(answers[number], found_in(bodies[number]))
    hanging = answers[3]
    assert isinstance(hanging, ImageError)
    assert hanging.kind is ErrorKind.TIMED_OUT
    assert str(hanging) == "the detector gave no answer in 0.5 s, and its process was ended"
    assert len(deaths) >= 2


@pytest.mark.parametrize("whom", ["child", "server"])
def test_a_process_that_something_else_has_stopped_costs_time_only(
    settings: DetectorSettings, whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_SLOWEST_S", 0.1)
    monkeypatch.setattr(a_child, "_REAPED_WITHIN_S", 0.5)
    others = _children(os.getpid())
    with closing(IsolatedDetector(STAND_IN, b"", settings, 0.5)) as detector:
        [server] = set(_children(os.getpid())) - set(others)
        children = _children(server)
        for pid in children if whom == "child" else [server, *children]:
            os.kill(pid, signal.SIGSTOP)
        answers = detector(_bodies(3))
        for body, answer in zip(_bodies(3), answers, strict=True):
            _assert_same(answer, found_in(body))
