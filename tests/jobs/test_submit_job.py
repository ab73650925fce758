"""yolox-ray submit against a real `ray start --head`, with a token: real processes throughout."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.faulty_s3 import FaultyS3, Hold, Rule, slow_down
from tests.head import PATIENCE_S, ROOT, Head

pytestmark = [pytest.mark.ray, pytest.mark.slow]

IMAGES = 64


@pytest.fixture(scope="module")
def head(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    # Ray's sockets lie in its folder, and their names have a limit of 107 bytes.
    head = Head(tmp_path_factory.mktemp("ray"), {}).start()
    yield head
    head.kill()


@pytest.fixture
def archive(bucket: Bucket) -> Bucket:
    for number in range(IMAGES):
        bucket.put(f"photos/{number:03d}.jpg", f"image {number}".encode())
    bucket.put("weights.bin", b"the stand-in's")
    return bucket


def _label(archive: Bucket, *flags: str) -> list[str]:
    """A job that labels the archive by the stand-in, whose file travels with the code."""
    uri = f"s3://{archive.name}"
    return [
        *("label", f"--source={uri}/photos/", f"--table={uri}/table", "--run=night"),
        *(f"--checkpoint={uri}/weights.bin", "--detector=stand_in:StandIn", "--num_actors=1"),
        *("--images_per_part=8", *flags),
    ]


SUBMIT = ["yolox-ray", "submit", "--files=[tests/stand_in.py]"]


def _hold_last_part(faulty_s3: FaultyS3) -> Hold:
    hold = Hold()
    faulty_s3.add(Rule(hold, method="PUT", key="*/images/*/part-00000007.parquet"))
    return hold


def _readme_section() -> list[str]:
    section = (ROOT / "README.md").read_text().partition("### On a cluster\n")[2]
    blocks = re.findall(r"```\n(.*?)```", re.split("\n##+ ", section)[0], re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def test_what_the_readme_says_of_a_cluster_works_line_by_line_and_training_is_seen_from_outside(
    head: Head, bucket: Bucket, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    commands = _readme_commands(tmp_path, f"s3://{bucket.name}/run")
    assert [c[:2] for c in commands[:2]] == [["export", "RAY_AUTH_MODE=token"], ["ray", "start"]]
    ran = [c for c in commands if c[0] not in ("export", "#") and c[1] not in ("start", "stop")]
    assert {"train", "label", "query"} <= {word for command in ran for word in command}
    hold = Hold()
    faulty_s3.add(Rule(hold, method="GET", key="run/metrics.csv"))  # after the last epoch
    for command in ran:
        process = head.begin(*command)
        if "train" in command:
            assert hold.reached.wait(120)
            _wait_for_metrics(head, "training")
            faulty_s3.clear()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, "\n".join([*command, out, err])


def _readme_commands(folder: Path, run: str) -> list[list[str]]:
    """The words of each line, with the training's output and all else where a test has them."""
    lines = [line.replace("/tmp/shapes/run", run) for line in _readme_section()]
    return [shlex.split(line.replace("/tmp/shapes", str(folder))) for line in lines]


def test_the_exit_code_and_the_words_are_those_of_the_job(head: Head) -> None:
    ran = head.run(*SUBMIT, "--wait", "--", "query", "--table=/nowhere/table", "SELECT 1")
    assert ran.returncode == 2
    assert "/nowhere/table is not a table" in ran.stdout
    assert re.search(r"submitted query-\S+ with \d\.\d MB of code to http://127", ran.stderr)


def test_a_job_that_is_stopped_ends_in_time_without_its_storage_and_goes_on_after(
    head: Head, archive: Bucket, faulty_s3: FaultyS3
) -> None:
    hold = _hold_last_part(faulty_s3)
    following = head.begin(*SUBMIT, "--wait", "--", *_label(archive))
    assert hold.reached.wait(120)
    faulty_s3.add(Rule(Hold()))  # from now on nothing is answered
    name = _name_of(following)
    started = time.monotonic()
    head.run("ray", "job", "stop", name)
    assert following.wait(60) == 143
    assert time.monotonic() - started < 40
    faulty_s3.clear()
    ran = head.run(*SUBMIT, "--wait", "--", *_label(archive))
    assert ran.returncode == 0, ran.stdout
    assert f"submitted {name}-2 " in ran.stderr
    assert f"listed {IMAGES} = labelled {IMAGES} + failed 0" in ran.stdout


def _name_of(following: subprocess.Popen[str]) -> str:
    """What it says that it has submitted."""
    assert following.stderr is not None
    told = []
    for line in following.stderr:
        told.append(line)
        if found := re.search(r"submitted (label-night-\w+) ", line):
            return found[1]
    raise AssertionError(told)


def test_a_night_that_runs_is_seen_from_outside_and_refused_a_second_time(
    head: Head, archive: Bucket, faulty_s3: FaultyS3
) -> None:
    hold = _hold_last_part(faulty_s3)
    faulty_s3.add(Rule(slow_down, method="GET", key="*photos/001.jpg", times=1))
    first = head.begin(*SUBMIT, "--wait", "--json_log", "--", *_label(archive))
    assert hold.reached.wait(120)
    second = head.run(*SUBMIT, "--wait", "--", *_label(archive))
    assert second.returncode == 2
    _wait_for_metrics(head, "labelling")
    assert f"error: {_name_of(first)} runs already" in second.stderr
    faulty_s3.clear()
    log, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    _check_json(log)


def _check_json(log: str) -> None:
    """Hold what a labelling run said, after what Ray said of its start, to JSON lines."""
    lines = log[log.index("{") :].splitlines()
    told = [json.loads(line) for line in lines]
    assert {line["run"] for line in told} == {"night"}
    assert sorted(line["part"] for line in told if "part" in line) == list(range(8))
    assert "run night: complete" in [line.get("message") for line in told]


def _wait_for_metrics(head: Head, of: str) -> None:
    """Return when all have come that are asked for; they come by and by."""
    for name in _metrics_asked_for(of):
        head.metrics(until=f"{name}{{")


def _metrics_asked_for(of: str) -> set[str]:
    """The names of a room's metrics, as Prometheus has them, in the dashboards and the alerts."""
    text = "".join(file.read_text() for file in (ROOT / "infra/monitoring").iterdir())
    named = set(re.findall(r"ray_yolox_\w+", text))
    of_training = {name for name in named if name.startswith("ray_yolox_training_")}
    asked_for = of_training if of == "training" else named - of_training
    assert len(asked_for) > 5
    return asked_for


@pytest.mark.soak
def test_a_run_that_stalled_is_submitted_again(
    head: Head, archive: Bucket, faulty_s3: FaultyS3
) -> None:
    _hold_last_part(faulty_s3)
    words = [*SUBMIT, "--wait", "--retries=1", "--", *_label(archive, "--stall_timeout=12")]
    following = head.begin(*words)
    assert following.stderr is not None
    for line in following.stderr:
        if "ended with exit code 4: submitting it again" in line:
            break
    faulty_s3.clear()
    out, _ = following.communicate(timeout=120)
    assert following.returncode == 0, out
    assert "run night: complete" in out


@pytest.mark.soak
def test_a_cluster_that_is_lost_costs_an_attempt(
    s3_endpoint: str, archive: Bucket, faulty_s3: FaultyS3, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hold = _hold_last_part(faulty_s3)
    lost = Head(tmp_path_factory.mktemp("ray"), {}).start()
    following = lost.begin(*SUBMIT, "--wait", "--retries=1", "--", *_label(archive))
    assert hold.reached.wait(120)
    lost.kill()
    faulty_s3.clear()
    found = Head(tmp_path_factory.mktemp("ray"), {}, port=lost.port)
    found.environment["RAY_AUTH_TOKEN"] = lost.environment["RAY_AUTH_TOKEN"]
    found.start()
    out, err = following.communicate(timeout=200)
    found.kill()
    assert following.returncode == 0, (out, err)
    assert "was lost with its cluster: submitting it again, 1 left" in err


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--address=head:8265"], {}, "must be the dashboard's, as http://host:8265"),
        (["--address=http://127.0.0.1:9"], {}, "does not answer as a Ray dashboard"),
        ([], {"RAY_AUTH_TOKEN": "f" * 32}, "refuses the token: set RAY_AUTH_MODE=token"),
        (["--env={AWS_SECRET_ACCESS_KEY: x}"], {}, "everybody who sees the dashboard"),
        (["--files=[nowhere.py]"], {}, "'nowhere.py' is not there"),
        (["--retries=2"], {}, "needs --wait"),
    ],
)
def test_bad_input_exits_with_2_and_one_sentence(
    head: Head, words: list[str], environment: dict[str, str], told: str
) -> None:
    refused = head.run("yolox-ray", "submit", *words, "--", "table", "list", **environment)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_job_that_does_not_exist_is_refused_with_the_nearest_names(head: Head) -> None:
    assert "no job: give one after --" in head.run("yolox-ray", "submit", "--wait").stderr
    refused = head.run("yolox-ray", "submit", "--", "lable", "--run", "night")
    assert refused.returncode == 2
    assert "there is no job 'lable': did you mean table or label?" in refused.stderr
