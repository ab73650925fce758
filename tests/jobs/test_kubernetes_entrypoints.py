"""What the manifests of infra/kubernetes start, as it stands in them, on a real head.

values.yaml is changed as a user would change it, for a bucket of this machine; jobs are made small.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Bucket, write_training_shapes
from tests.faulty_s3 import FaultyS3, Hold, Rule
from tests.head import ROOT, Head
from tests.test_kubernetes import FOLDERS, KUBECTL, PLACEHOLDER, job_of, settings_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(KUBECTL is None, reason="needs kubectl, for its kustomize"),
]

SETTINGS = "/etc/yolox-ray"
"""Where the head's pod has the settings of the jobs."""

IMAGES = 64
SMALL = {
    "label": {"num_actors": 1, "gpus_per_actor": 0, "detector": "tests.stand_in:StandIn"},
    "train": {
        **{"preset": "nano", "input_size": 64, "num_workers": 1, "use_gpu": False},
        **{"epochs": 1, "warmup_epochs": 0, "no_aug_epochs": 0, "batch_size": 4},
    },
}


@pytest.fixture(scope="module")
def head(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    of_the_image = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
    head = Head(tmp_path_factory.mktemp("ray"), of_the_image | {"PYTHONPATH": str(ROOT)}).start()
    yield head
    head.kill()


@pytest.fixture
def settings(bucket: Bucket, tmp_path: Path) -> Path:
    """What lies in SETTINGS, for an archive of the stand-in's."""
    for number in range(IMAGES):
        bucket.put(f"photos/{number:03d}.jpg", f"image {number}".encode())
    bucket.put("weights/yolox_s.pth", b"the stand-in's")
    _write_settings(tmp_path, bucket.name, SMALL)
    return tmp_path


def _write_settings(folder: Path, bucket: str, changes: dict[str, dict[str, Any]]) -> None:
    for job in SMALL:
        text = yaml.safe_dump(settings_of(job) | changes.get(job, {}))
        (folder / f"{job}.yaml").write_text(text.replace(PLACEHOLDER, bucket))


def _begin(head: Head, folder: str, settings: Path, name: str) -> subprocess.Popen[str]:
    """As KubeRay's submitter has it: the entrypoint stands in a line of bash, as it is."""
    entrypoint = job_of(folder)["entrypoint"]
    assert SETTINGS in entrypoint
    submit = f"ray job submit --address {head.address} --submission-id {settings.name}-{name}"
    line = f"{submit} -- {entrypoint.replace(SETTINGS, str(settings))} ;"
    return head.begin("/bin/bash", "-ce", "--", line)


def _run(head: Head, folder: str, settings: Path, name: str) -> str:
    """What a job that ends well prints."""
    process = _begin(head, folder, settings, name)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    return out


def test_the_train_entrypoint_trains(head: Head, settings: Path, bucket: Bucket) -> None:
    write_training_shapes(settings, 12)
    for table in ("train", "val"):
        bucket.put(f"{table}.parquet", (settings / "truth.parquet").read_bytes())
    told = _run(head, "train", settings, "train")
    assert f"s3://{bucket.name}/runs/mine/last.pth: epoch 1" in told


def test_values_that_are_as_they_came_are_one_sentence_and_exit_code_2(
    head: Head, tmp_path: Path
) -> None:
    _write_settings(tmp_path, PLACEHOLDER, changes={})
    begun = [_begin(head, folder, tmp_path, folder) for folder in FOLDERS]
    for process in begun:
        out, _ = process.communicate(timeout=200)
        assert "failed with exit code 2" in out
        [sentence] = {line for line in out.splitlines() if line.startswith("error: ")}
        assert PLACEHOLDER in sentence


def test_a_long_night_is_left_alone_by_the_next_stopped_with_its_head_and_gone_on_with(
    head: Head, settings: Path, faulty_s3: FaultyS3
) -> None:
    hold = Hold()
    faulty_s3.add(Rule(hold, method="PUT", key="*/images/*/part-00000001.parquet"))
    night = _begin(head, "nightly-cronjob", settings, "night")
    assert hold.reached.wait(120)
    next_night = _run(head, "nightly-raycronjob", settings, "next-night")
    assert "is being labelled by" in next_night
    _end_as_kubernetes_does(head)
    out, _ = night.communicate(timeout=60)
    assert "stopped by SIGTERM" in out
    faulty_s3.clear()
    later = _run(head, "label", settings, "later")
    assert f"listed {IMAGES} = labelled {IMAGES} + failed 0" in later


def _end_as_kubernetes_does(head: Head) -> None:
    """By the hook of the head's container, with the variable that KubeRay sets there."""
    pod = job_of("label")["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [container] = pod["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    words = [word.replace("127.0.0.1:8265", f"127.0.0.1:{head.port}") for word in command]
    ended = head.run("/usr/bin/env", *words[1:], RAY_ADDRESS="127.0.0.1:6379")
    assert ended.returncode == 0, ended.stderr
