"""Connect to Ray: the cluster a submitted job runs in, or a local Ray on a laptop."""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from pipelines.errors import ClusterTooSmallError, InputError
from pipelines.planning import ActorPlan, Node, plan_actors

SECONDS_BETWEEN_LINES = 60.0
"""Between those that say what a run waits for."""

# Ray is imported where it is needed: a second that help and mistakes need not wait.


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start a local Ray; keep what this process has already.

    Ray's usage statistics are off. Its token authentication is left as Ray has it, which is on.
    """
    _quieten()
    if is_connected():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with _lines_dropped(_ABOUT_THE_LEVEL):
        _start_or_join()
    if threading.current_thread() is threading.main_thread():
        # Ray puts its own in place, which ends the process without asking the job.
        signal.signal(signal.SIGTERM, on_sigterm)


def leave(exit_code: int) -> NoReturn:
    """End this process amid a run; Ray then ends its tasks, and a local Ray itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    _end_what_raylets_started()
    # Neither sys.exit() nor ray.shutdown(): a thread that still waits for results would join Ray
    # again, or make Ray end the process at once, with exit code 1.
    os._exit(exit_code)


def _end_what_raylets_started() -> None:
    """Of a local Ray: the raylet ends with this process, its agents notice that a minute later."""
    for child in _children(os.getpid()):
        with suppress(OSError):
            if b"raylet" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]:
                for process in _children(child):
                    os.kill(process, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Of all its threads; none where there is no /proc."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


_ABOUT_THE_LEVEL = b"Set ray log level from environment variable"
"""Ray's C++ says so before it has a level."""


@contextmanager
def _lines_dropped(about: bytes) -> Iterator[None]:
    """Within it, stderr waits, and then has no line with these bytes."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held_back.seek(0)
            os.write(2, b"".join(line for line in held_back if about not in line))


def leave_local() -> None:
    """At the end of a program: leave a local Ray to end itself, which Python would wait for."""
    if is_connected() and "RAY_ADDRESS" not in os.environ:
        leave(0)


def disconnect() -> None:
    """Leave the cluster, or end the local Ray, which a process does at its end anyway."""
    import ray

    ray.shutdown()


def is_connected() -> bool:
    """Whether this process is in a Ray."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _start_or_join() -> None:
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        # 10 kB of each part, up to 100,000 tasks; a Ray without a dashboard shows them to nobody.
        os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "1000")
        ray.init(
            address="local",
            num_cpus=_cpus_of_a_local_ray(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _cpus_of_a_local_ray() -> int:
    """One more than there are cores: Ray's CPUs are tickets.

    The stages that fetch and write wait for the network most of the time. Without it they would
    starve, since every core is held by an actor.
    """
    return usable_cores() + 1


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores that this process may use: of a container its CPU quota, not the host's cores."""
    cores = len(os.sched_getaffinity(0))
    for file in (cgroup / "cpu.max", cgroup / "cpu/cpu.cfs_quota_us"):  # of cgroup v2, and of v1
        with suppress(OSError, ValueError):
            quota, *period = file.read_text().split()
            period = period or [(file.parent / "cpu.cfs_period_us").read_text()]
            if float(quota) > 0:  # "max" or -1 is none
                cores = min(cores, max(1, int(float(quota) / float(period[0]))))
    return cores


def _quieten() -> None:
    """Leave the terminal to our own progress and to errors; Ray Data's log file keeps the rest."""
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Each run of an actor pool would begin with an error about arguments that a restarted actor may
    # miss, and a node that goes with pages about its processes; ours miss none, and are told of.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.ERROR)


def nodes() -> list[Node]:
    """What the cluster has now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]


def this_node() -> tuple[str, Node]:
    """The id of the node that this process of Ray runs on, and what Ray has there."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    found = next(node for node in ray.nodes() if node["NodeID"] == node_id)["Resources"]  # type: ignore[no-untyped-call]
    return node_id, Node(found.get("CPU", 0.0), found.get("GPU", 0.0))


def _may_grow() -> bool:
    """Whether Ray may get nodes that it does not have: a local one is what it is."""
    return "RAY_ADDRESS" in os.environ


def wait_for_workers(num_workers: int, use_gpu: bool, timeout_s: float) -> None:
    """Return when Ray has room for workers of one CPU each, and one GPU if they use any.

    What is asked for makes a cluster grow that can; there is a line a minute.

    Raises:
        InputError: Ray can never hold them.
        ClusterTooSmallError: it has not had the room for `timeout_s`.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    kind = "GPUs" if use_gpu else "CPUs"
    there = _there(use_gpu)
    if there < num_workers and not _may_grow():
        raise InputError(
            f"num_workers={num_workers}: Ray has {there} {kind}, and each worker needs one"
        )
    bundle = {"CPU": 1.0, "GPU": 1.0} if use_gpu else {"CPU": 1.0}
    group = placement_group([bundle] * num_workers)
    try:
        deadline = time.monotonic() + timeout_s
        while not group.wait(min(SECONDS_BETWEEN_LINES, max(0.0, deadline - time.monotonic()))):
            state = f"{kind}: {_there(use_gpu)} are there, {num_workers} workers need one each"
            if time.monotonic() >= deadline:
                raise ClusterTooSmallError(
                    f"{state} after {timeout_s:.0f} s: look whether the cluster can get such nodes "
                    "now, give fewer --num_workers, or wait longer with --wait_timeout"
                )
            print(f"waiting for {state}", file=sys.stderr, flush=True)
    finally:
        remove_placement_group(group)


def _there(use_gpu: bool) -> int:
    return sum(int(node.gpus if use_gpu else node.cpus) for node in nodes())


def plan(num_actors: int | None, gpus_per_actor: float | None, min_actors: int) -> ActorPlan:
    """Join or start Ray, and share it out among the detectors; raises as plan_actors does.

    A local Ray is what it is; a cluster that was joined may get nodes that it does not have yet.
    """
    connect()
    return plan_actors(nodes(), num_actors, gpus_per_actor, min_actors, may_grow=_may_grow())


def refuse_too_many_actors(num_actors: int | None) -> None:
    """Raises InputError for more actors than a Ray that this process will start could hold.

    Of a cluster, and of GPUs, that is known only once Ray is there.
    """
    if num_actors is not None and _will_start_a_local_ray():
        plan_actors([Node(_cpus_of_a_local_ray(), 0.0)], num_actors, gpus_per_actor=0.0)


def refuse_too_many_workers(num_workers: int | None) -> None:
    """As `refuse_too_many_actors`, for the workers of a training."""
    cpus = _cpus_of_a_local_ray()
    if num_workers is not None and num_workers > cpus and _will_start_a_local_ray():
        raise InputError(
            f"num_workers={num_workers}: Ray has {cpus} CPUs, and each worker needs one"
        )


def _will_start_a_local_ray() -> bool:
    return "RAY_ADDRESS" not in os.environ and not is_connected()
