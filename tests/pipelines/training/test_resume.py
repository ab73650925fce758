"""Processes are killed while they train; the weights must be those of an unbroken run."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.cluster_utils import Cluster

from pipelines.storage.folder import Folder
from pipelines.training.state import StateStore
from tests.conftest import write_training_shapes

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three epochs of sixteen steps on two workers, with all that is random."""
    folder = tmp_path_factory.mktemp("shapes")
    write_training_shapes(folder, 64)
    return {
        "train": str(folder / "truth.parquet"),
        "val": str(folder / "truth.parquet"),
        "preset": "nano",
        "input_size": 96,
        "epochs": 3,
        "batch_size": 4,
        "warmup_epochs": 1,
        "no_aug_epochs": 1,
        "mosaic": 0.7,
        "mixup": 0.5,
        "eval_every": 2,
        "num_workers": 2,
    }


@pytest.fixture(scope="module")
def unbroken(
    settings: dict[str, Any], no_ray_here: None, tmp_path_factory: pytest.TempPathFactory
) -> Folder:
    """The output of a run that nothing happened to."""
    output = Folder(str(tmp_path_factory.mktemp("unbroken")))
    told_by(start_training(settings, output))
    return output


def test_a_killed_worker_costs_nothing_but_time(
    settings: dict[str, Any], unbroken: Folder, bucket
) -> None:
    output = Folder(f"s3://{bucket.name}/run")
    driver = start_training(settings, output)
    wait_until(lambda: epochs_done(output) >= 2)
    time.sleep(0.3)  # into the third epoch
    os.kill(next(train_workers(raylet_of(driver.pid))), signal.SIGKILL)
    assert "going on after 2 epochs and 0 steps" in told_by(driver)
    assert_same_training(output, unbroken)


def test_a_killed_driver_is_taken_up_by_the_same_command_even_from_the_state_before_the_newest(
    settings: dict[str, Any], unbroken: Folder, tmp_path: Path
) -> None:
    output = Folder(str(tmp_path / "run"))
    driver = start_training(settings, output)
    wait_until(lambda: epochs_done(output) >= 2)
    raylet = raylet_of(driver.pid)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    wait_until(lambda: not list(train_workers(raylet)))
    damage_newest_state(tmp_path / "run/states")

    told = told_by(start_training(settings, output))
    assert "is damaged (RuntimeError): left out" in told
    assert "going on after" in told
    assert_same_training(output, unbroken)


def test_a_node_announced_to_go_has_the_state_saved_in_mid_epoch(
    settings: dict[str, Any], unbroken: Folder, tmp_path: Path
) -> None:
    output = Folder(str(tmp_path / "run"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        # Room for both workers, whichever node goes.
        nodes = [cluster.add_node(num_cpus=cpus) for cpus in (1, 1, 2)]
        driver = start_training(settings, output, RAY_ADDRESS=cluster.address)
        raylets = {node.all_processes["raylet"][0].process.pid: node.node_id for node in nodes}
        wait_until(lambda: any(list(train_workers(raylet)) for raylet in raylets))
        node_id = next(raylets[raylet] for raylet in raylets if list(train_workers(raylet)))
        announce_the_end_of(node_id, cluster.address)
        told = told_by(driver)
    finally:
        cluster.shutdown()
    assert re.search(r"a node will be taken away: state saved after \d epochs and 10 steps", told)
    assert_same_training(output, unbroken)


def announce_the_end_of(node_id: str, address: str) -> None:
    """Tell Ray that a node will be taken back in a minute, as a cloud would."""
    drain = ["drain-node", f"--address={address}", f"--node-id={node_id}"]
    drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot instance"]
    ray_command = Path(sys.executable).with_name("ray")
    subprocess.run([ray_command, *drain, "--deadline-remaining-seconds=60"], check=True, timeout=60)


def start_training(
    settings: dict[str, Any], output: Folder, **environment: str
) -> subprocess.Popen[str]:
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "jobs.train", f"--output={output.uri}", *flags]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def told_by(driver: subprocess.Popen[str]) -> str:
    """What it printed until it ended, which must be well."""
    told, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    return told


def epochs_done(output: Folder) -> int:
    names = output.list("states")
    return int(names[-1].removeprefix("states/epoch-")[:5]) if names else 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in two minutes"
        time.sleep(0.05)


def train_workers(raylet: int) -> Iterator[int]:
    """The training workers that a raylet, which starts a node's processes, has started."""
    return (pid for pid in children_of(raylet) if "TrainWorker" in command_line(pid))


def raylet_of(driver: int) -> int:
    """The raylet of the Ray that a driver started for itself."""
    return next(pid for pid in children_of(driver) if "raylet/raylet" in command_line(pid))


def children_of(parent: int) -> list[int]:
    processes = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in processes if parent_of(pid) == parent]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # it has ended meanwhile


def parent_of(pid: int) -> int:
    try:
        # The command, in brackets, may hold spaces; the parent is the second field after it.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def damage_newest_state(states: Path) -> None:
    newest = max(states.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])


def assert_same_training(one: Folder, other: Folder) -> None:
    """Weights, averages, momenta and positions, bit for bit, and the weights to label with."""
    states = [state_of(output) for output in (one, other)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    for name in ("best.pth", "last.pth"):
        files = [io.BytesIO(output.read(name)) for output in (one, other)]
        weights = [torch.load(file, weights_only=True)["model"] for file in files]
        torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def state_of(output: Folder) -> dict[str, Any]:
    """The newest state, without the times that it took."""
    state, _ = StateStore(output).newest()
    assert state is not None
    trainer: dict[str, Any] = state["trainer"]
    trainer["position"] |= {"seconds": 0, "wait_seconds": 0}
    return trainer
