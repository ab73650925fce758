"""Connect to Ray: the cluster a submitted job runs in, or a local Ray on a laptop."""

import logging
import math
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import NoReturn

from pipelines.errors import InputError

# Ray is imported where it is needed: a second that help and mistakes need not wait.


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start a local Ray; keep what this process has already.

    Ray's usage statistics are off. Its token authentication is left as Ray has it, which is on.
    """
    _quieten()
    if _is_connected():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    _start_or_join()
    if threading.current_thread() is threading.main_thread():
        # Ray puts its own in place, which ends the process without asking the job.
        signal.signal(signal.SIGTERM, on_sigterm)


def leave(exit_code: int) -> NoReturn:
    """End this process amid a run; Ray then ends its tasks, and a local Ray itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Neither sys.exit() nor ray.shutdown(): a thread that still waits for results would join Ray
    # again, or make Ray end the process at once, with exit code 1.
    os._exit(exit_code)


def _is_connected() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _start_or_join() -> None:
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
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
    return (os.cpu_count() or 1) + 1


def _quieten() -> None:
    """Leave the terminal to our own progress and to errors; Ray Data's log file keeps the rest."""
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.ERROR)


def resources() -> tuple[int, float]:
    """(CPUs, GPUs) of the cluster."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(found.get("CPU", 0)), found.get("GPU", 0.0)


@dataclass(frozen=True)
class ActorPlan:
    """How many actors run, and what each one reserves."""

    num_actors: int
    cpus: int
    """Cores for decoding, and for the model where there is no GPU."""
    gpus: float


def plan(num_actors: int | None, gpus_per_actor: float | None) -> ActorPlan:
    """Join or start Ray, and share it out among the detectors; raises as plan_actors does."""
    connect()
    return plan_actors(*resources(), num_actors, gpus_per_actor)


def refuse_too_many_actors(num_actors: int | None) -> None:
    """Raises InputError for more actors than a Ray that this process will start could hold.

    Of a cluster, and of GPUs, that is known only once Ray is there.
    """
    if num_actors is not None and _will_start_a_local_ray():
        plan_actors(_cpus_of_a_local_ray(), math.inf, num_actors, gpus_per_actor=0.0)


def refuse_too_many_workers(num_workers: int | None) -> None:
    """As `refuse_too_many_actors`, for the workers of a training."""
    cpus = _cpus_of_a_local_ray()
    if num_workers is not None and num_workers > cpus and _will_start_a_local_ray():
        raise InputError(
            f"num_workers={num_workers}: Ray has {cpus} CPUs, and each worker needs one"
        )


def _will_start_a_local_ray() -> bool:
    return "RAY_ADDRESS" not in os.environ and not _is_connected()


def plan_actors(
    cluster_cpus: int, cluster_gpus: float, num_actors: int | None, gpus_per_actor: float | None
) -> ActorPlan:
    """Share a cluster out among the detectors, one core kept free for fetching and writing.

    With GPUs, one actor per `gpus_per_actor` and the cores divided among them. Without, one actor
    per core: two processes of one thread each beat one process of two.

    Raises:
        InputError: the cluster can never hold these actors; Ray would wait for ever.
    """
    gpus = (1.0 if cluster_gpus else 0.0) if gpus_per_actor is None else gpus_per_actor
    spare_cpus = max(1, cluster_cpus - 1)
    if num_actors is None:
        num_actors = max(1, int(cluster_gpus / gpus)) if gpus else spare_cpus
    plan = ActorPlan(num_actors, max(1, spare_cpus // num_actors), gpus)
    if num_actors > spare_cpus:
        raise InputError(
            f"num_actors={num_actors} needs {num_actors + 1} CPUs (one each, one for fetching and "
            f"writing) and Ray has {cluster_cpus}: give --num_actors {spare_cpus} or fewer"
        )
    if num_actors * gpus > cluster_gpus:
        raise InputError(
            f"num_actors={num_actors} with gpus_per_actor={gpus} needs {num_actors * gpus:g} GPUs "
            f"and Ray has {cluster_gpus:g}: give fewer of either"
        )
    return plan
