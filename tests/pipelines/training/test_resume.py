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
from tests.conftest import TrainedRun

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_killed_worker_and_a_killed_driver_cost_nothing_but_time(
    trained_run: TrainedRun, bucket
) -> None:
    output = Folder(f"s3://{bucket.name}/run")
    driver = start_training(trained_run, output)
    raylet = raylet_of(driver)
    wait_until(lambda: epochs_done(output) >= 1)
    os.kill(next(train_workers(raylet)), signal.SIGKILL)
    wait_until(lambda: not list(train_workers(raylet)))
    done = epochs_done(output)
    wait_until_told(driver, f"going on after {done} epochs and 0 steps")
    wait_until(lambda: epochs_done(output) > done)
    workers = list(train_workers(raylet))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    wait_until(lambda: not any(map(command_line, workers)))  # which may be writing a state
    damage_newest_state(output)

    told = told_by(start_training(trained_run, output))
    assert "is damaged (RuntimeError): left out" in told
    assert re.search(r"going on after \d epochs and 0 steps", told)
    assert_same_training(output, Folder(trained_run.settings["output"]))


@pytest.mark.soak
def test_a_node_announced_to_go_has_the_state_saved_in_mid_epoch(
    trained_run: TrainedRun, no_ray_here: None, tmp_path: Path
) -> None:
    output = Folder(str(tmp_path / "run"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        # Room for both workers, whichever node goes.
        nodes = [cluster.add_node(num_cpus=cpus) for cpus in (1, 1, 2)]
        driver = start_training(trained_run, output, RAY_ADDRESS=cluster.address)
        raylets = {node.all_processes["raylet"][0].process.pid: node.node_id for node in nodes}
        wait_until(lambda: any(list(train_workers(raylet)) for raylet in raylets))
        node_id = next(raylets[raylet] for raylet in raylets if list(train_workers(raylet)))
        announce_the_end_of(node_id, cluster.address)
        told = told_by(driver)
    finally:
        cluster.shutdown()
    assert re.search(r"a node will be taken away: state saved after \d epochs and \d+ steps", told)
    assert_same_training(output, Folder(trained_run.settings["output"]))


def announce_the_end_of(node_id: str, address: str) -> None:
    """Tell Ray that a node will be taken back in a minute, as a cloud would."""
    drain = ["drain-node", f"--address={address}", f"--node-id={node_id}"]
    drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot instance"]
    ray_command = Path(sys.executable).with_name("ray")
    subprocess.run([ray_command, *drain, "--deadline-remaining-seconds=60"], check=True, timeout=60)


def start_training(run: TrainedRun, output: Folder, **environment: str) -> subprocess.Popen[str]:
    """The same training to another output."""
    settings = run.settings | {"output": output.uri}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "jobs.train", *flags]
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


def wait_until_told(driver: subprocess.Popen[str], words: str) -> None:
    """Read what it prints up to the line with these words; Ray hands on workers' lines late."""
    assert driver.stdout is not None
    lines = []
    for line in driver.stdout:
        lines.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without {words!r}:\n{''.join(lines)}")


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


def raylet_of(driver: subprocess.Popen[str]) -> int:
    """The raylet of the Ray that a driver starts for itself."""
    found: list[int] = []

    def is_there() -> bool:
        assert driver.poll() is None, "the driver has ended"
        found[:] = [p for p in children_of(driver.pid) if "raylet/raylet" in command_line(p)]
        return bool(found)

    wait_until(is_there)
    return found[0]


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


def damage_newest_state(output: Folder) -> None:
    newest = max(output.list("states"))
    output.write(newest, output.read(newest)[:-100])


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
