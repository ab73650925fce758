"""Labelling on a cluster that has no GPU yet: Ray's own autoscaler, with pretended nodes."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write_training_shapes
from tests.head import ROOT, Head, free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HEAD = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
GPU_NODE = {"resources": {"CPU": 2, "GPU": 2, "object_store_memory": 10**8}, "node_config": {}}


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head without work that may get two nodes of 2 CPUs and 2 GPUs."""
    folder = tmp_path_factory.mktemp("ray")
    port = free_port()
    config = folder / "autoscaler.json"
    config.write_text(
        json.dumps(
            {
                "cluster_name": "growing",
                "max_workers": 2,
                "upscaling_speed": 10.0,
                "idle_timeout_minutes": 10,
                "provider": {
                    "type": "fake_multinode",
                    "gcs_address": f"{_own_ip()}:{port}",
                    "use_node_id_as_ip": True,  # the nodes share this machine's
                    "disable_node_updaters": True,
                    "disable_launch_config_check": True,
                },
                "auth": {"ssh_user": "nobody"},
                "head_node_type": "ray.head.default",
                "available_node_types": {
                    "ray.head.default": HEAD,
                    "gpu": {**GPU_NODE, "min_workers": 0, "max_workers": 2},
                },
                "file_mounts": {},
                **{
                    name: []
                    for name in (
                        *("initialization_commands", "setup_commands", "head_setup_commands"),
                        *("worker_setup_commands", "head_start_ray_commands"),
                        *("worker_start_ray_commands", "cluster_synced_files"),
                    )
                },
            }
        )
    )
    environment = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    # Not submitted, but started beside it: the nodes share a folder, and would unpack the code of a
    # submission over each other.
    environment |= {"PYTHONPATH": str(ROOT)}
    flags = ("--num-cpus=0", f"--port={port}", f"--autoscaling-config={config}")
    head = Head(folder, environment, flags=flags).start()
    head.environment["RAY_ADDRESS"] = f"{_own_ip()}:{port}"
    yield head
    head.kill()


def _own_ip() -> str:
    """Where a head of this machine listens for its nodes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # sends nothing
        return str(asked.getsockname()[0])


def _label(folder: Path, *flags: str) -> list[str]:
    photos = folder / "photos"
    photos.mkdir()
    for number in range(96):
        (photos / f"{number:03d}.jpg").write_bytes(f"SLOW {number}".encode())
    return [
        *("python", "-m", "jobs.label", "--detector=tests.stand_in:StandIn"),
        *(f"--source={photos}", f"--table={folder / 'table'}", "--run=night"),
        *(f"--checkpoint={photos / '000.jpg'}", "--images_per_part=4", *flags),
    ]


def test_a_cluster_without_anything_wants_to_know_what_there_is_to_be(
    growing: Head, tmp_path: Path
) -> None:
    ran = growing.run(*_label(tmp_path))
    assert ran.returncode == 2
    assert "say with --num_actors how many detectors there are to be" in ran.stderr


def test_actors_that_were_asked_for_make_a_cluster_of_no_gpus_grow(
    growing: Head, tmp_path: Path
) -> None:
    ran = growing.run(*_label(tmp_path, "--num_actors=4", "--gpus_per_actor=1"))
    assert ran.returncode == 0, ran.stderr
    assert "listed 96 = labelled 96 + failed 0" in ran.stdout


def test_a_cluster_that_never_gets_large_enough_ends_the_run_with_a_code_of_its_own(
    growing: Head, tmp_path: Path
) -> None:
    words = ("--num_actors=1", "--gpus_per_actor=3", "--wait_timeout=5")
    ran = growing.run(*_label(tmp_path, *words))
    assert ran.returncode == 6, ran.stderr
    assert (
        "error: GPUs: 0 of 1 actors run after 5 s: look whether the cluster can get" in ran.stderr
    )
    assert '"status": "failed"' in (tmp_path / "table/runs/night.json").read_text()


def test_a_training_waits_in_the_same_way(growing: Head, tmp_path: Path) -> None:
    write_training_shapes(tmp_path, 20)
    truth = str(tmp_path / "truth.parquet")
    ran = growing.run(
        *("python", "-m", "jobs.train", "--train", truth, "--val", truth),
        *("--preset", "nano", "--input_size", "64", "--output", str(tmp_path / "run")),
        *("--batch_size=18", "--num_workers=9", "--use_gpu=true", "--wait_timeout=4"),
    )
    assert ran.returncode == 6, ran.stderr
    assert "9 workers need one each after 4 s: look whether the cluster can get" in ran.stderr
    assert not (tmp_path / "run").exists()
