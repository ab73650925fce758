import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.training.disk_cache import DiskCache
from tests.conftest import ROOT
from tests.disks import mounted

HOURS_AGO = time.time() - 5 * 3600
ON_DISK = 104  # 100 bytes and their checksum
OLD = {"week": 168, "day": 24, "used again": 48, "just now": 0.5}


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "usage"]


def unused_since(cache: DiskCache, key: str, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(cache._path(key), (then, then))


def test_what_was_put_is_got_by_everybody_who_opens_the_folder(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1000)
    assert cache.get("a") is None
    assert cache.put("a", b"one")
    assert cache.put("b", b"")
    assert cache.put("a", b"other")
    assert [DiskCache(tmp_path, 1000).get(key) for key in "abc"] == [b"other", b"", None]


@pytest.mark.parametrize("damage", [lambda f: f[:-1], lambda f: bytes(len(f)), lambda f: b""])
def test_a_damaged_file_is_as_good_as_none_and_can_be_put_anew(tmp_path: Path, damage) -> None:
    cache = DiskCache(tmp_path, 1000)
    cache.put("a", bytes(range(100)))
    [file] = files_of(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("a") is None
    assert cache.put("a", bytes(range(100)))
    assert cache.get("a") == bytes(range(100))


def test_what_is_in_use_stays_and_more_is_refused(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 3 * ON_DISK)
    assert [cache.put(key, bytes(100)) for key in "abcd"] == [True, True, True, False]
    assert cache.put("b", bytes(100))  # in place of the old one there is room
    assert [cache.get(key) is None for key in "abcd"] == [False, False, False, True]


def test_what_nobody_has_used_for_an_hour_makes_room_oldest_use_first(tmp_path: Path) -> None:
    before = DiskCache(tmp_path, 4 * ON_DISK)
    for key, hours in OLD.items():
        before.put(key, bytes(100))
        unused_since(before, key, hours)
    before.get("used again")
    cache, left = DiskCache(tmp_path, 4 * ON_DISK), []
    for key in "abc":
        was_kept = cache.put(key, bytes(100))
        left.append((was_kept, [old for old in OLD if cache._path(old).exists()]))
    assert left == [
        (True, ["day", "used again", "just now"]),
        (True, ["used again", "just now"]),
        (False, ["used again", "just now"]),
    ]


def test_what_another_process_took_up_again_meanwhile_stays(tmp_path: Path) -> None:
    cache, other = (DiskCache(tmp_path, 2 * ON_DISK) for _ in range(2))
    for key in ("a", "b"):
        other.put(key, bytes(100))
        unused_since(other, key, 5)
    assert cache.put("new", bytes(100))  # in place of one of the two; the other one is next
    [left] = [key for key in ("a", "b") if other.get(key)]
    assert not cache.put("newer", bytes(100))
    assert other.get(left)


def test_a_folder_that_somebody_empties_meanwhile_is_filled_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "kept", 2 * ON_DISK)
    assert [cache.put(key, bytes(100)) for key in "ab"] == [True, True]
    shutil.rmtree(tmp_path / "kept")
    assert cache.get("a") is None
    assert [cache.put(key, bytes(100)) for key in "cde"] == [True, True, False]


def test_what_a_killed_writer_left_goes_too(tmp_path: Path) -> None:
    DiskCache(tmp_path, 1000).put("a", bytes(100))
    [file] = files_of(tmp_path)
    left = file.with_suffix(".tmp")
    file.rename(left)
    os.utime(left, (HOURS_AGO, HOURS_AGO))
    assert DiskCache(tmp_path, ON_DISK).put("b", bytes(100))
    assert not left.exists()


WRITER = """
import sys
from pathlib import Path
from pipelines.training.disk_cache import DiskCache

folder, limit, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = DiskCache(folder, limit)
for key in range(first, first + 400):
    cache.put(str(key), str(key).encode() * 1000)
    print(key, flush=True)
"""


def writer(folder: Path, limit: int, first: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), str(limit), str(first)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_folder_and_its_limit(tmp_path: Path) -> None:
    limit = 1_000_000  # of 600 values of some 3 kB each, 200 of which both put
    writers = [writer(tmp_path, limit, first) for first in (100, 300)]
    for process in writers:
        process.communicate()
    assert [process.returncode for process in writers] == [0, 0]
    sizes = [file.stat().st_size for file in files_of(tmp_path)]
    assert limit - 3004 < sum(sizes) <= limit
    assert int((tmp_path / "usage").read_bytes()) == sum(sizes)
    cache = DiskCache(tmp_path, limit)
    found = {key: cache.get(str(key)) for key in range(100, 700)}
    assert len(sizes) == sum(value is not None for value in found.values())
    assert all(value in (None, str(key).encode() * 1000) for key, value in found.items())


def test_a_process_killed_while_it_writes_costs_the_other_one_nothing(tmp_path: Path) -> None:
    killed, other = writer(tmp_path, 10**8, 100), writer(tmp_path, 10**8, 500)
    assert killed.stdout
    for _ in range(50):
        killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    other.communicate(timeout=60)
    killed.communicate()
    cache = DiskCache(tmp_path, 10**8)
    assert all(cache.get(str(key)) == str(key).encode() * 1000 for key in range(500, 900))
    assert all(cache.get(str(key)) for key in range(100, 149))


def test_a_disk_that_is_full_raises_and_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "200k") as folder:
        cache = DiskCache(folder, 10**9)
        with pytest.raises(OSError, match="No space left on device"):
            [cache.put(str(key), bytes([key]) * 10_000) for key in range(100)]
        files = files_of(folder)
        assert 5 < len(files) < 20
        assert {file.stat().st_size for file in files} == {10_004}
        assert cache.get("0") == bytes(10_000)
        assert int((folder / "usage").read_bytes()) == 10_004 * len(files)


def test_without_a_limit_a_fifth_of_the_disk_stays_free(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "4m") as folder:
        cache = DiskCache(folder)
        while cache.put(str(len(files_of(folder))), bytes(40_000)):
            pass
        disk = os.statvfs(folder)
        assert 0.15 < disk.f_bavail / disk.f_blocks < 0.21
