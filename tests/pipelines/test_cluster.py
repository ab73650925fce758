import pytest

from pipelines.cluster import ActorPlan, plan_actors
from pipelines.errors import InputError


def test_without_gpus_every_core_but_one_gets_an_actor() -> None:
    assert plan_actors(3, 0, None, None) == ActorPlan(num_actors=2, cpus=1, gpus=0)


def test_a_single_actor_gets_all_spare_cores_for_its_threads() -> None:
    assert plan_actors(9, 0, 1, None) == ActorPlan(num_actors=1, cpus=8, gpus=0)


def test_with_gpus_the_cores_are_shared_among_them_for_decoding() -> None:
    assert plan_actors(17, 2, None, None) == ActorPlan(num_actors=2, cpus=8, gpus=1)
    assert plan_actors(17, 2, None, 0.5) == ActorPlan(num_actors=4, cpus=4, gpus=0.5)


def test_gpus_can_be_left_alone() -> None:
    assert plan_actors(5, 2, None, 0.0) == ActorPlan(num_actors=4, cpus=1, gpus=0)


def test_actors_that_would_wait_for_ever_are_refused() -> None:
    with pytest.raises(InputError, match=r"needs 5 CPUs .* Ray has 3: give --num_actors 2"):
        plan_actors(3, 0, 4, None)
    with pytest.raises(InputError, match="needs 2 GPUs and Ray has 1"):
        plan_actors(9, 1, 2, 1.0)
