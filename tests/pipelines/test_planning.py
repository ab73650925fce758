import pytest

from pipelines.errors import InputError
from pipelines.planning import ActorPlan, Node, plan_actors


def test_without_gpus_every_core_but_one_of_a_node_gets_an_actor() -> None:
    assert plan_actors([Node(3)], None, None) == ActorPlan(num_actors=2, cpus=1, gpus=0)
    assert plan_actors([Node(8), Node(4)], None, None).num_actors == 7 + 3
    assert plan_actors([Node(1)], None, None) == ActorPlan(num_actors=1, cpus=0.5, gpus=0)


def test_a_single_actor_gets_all_spare_cores_for_its_threads() -> None:
    plan = plan_actors([Node(9)], 1, None)
    assert plan == ActorPlan(num_actors=1, cpus=8, gpus=0)
    assert plan.threads_on(Node(9)) == 8


def test_an_actor_never_reserves_more_than_a_node_has() -> None:
    assert plan_actors([Node(8), Node(8)], 1, None).cpus == 7


def test_with_gpus_the_cores_of_a_node_are_shared_among_its_actors_for_decoding() -> None:
    assert plan_actors([Node(17, 2)], None, None) == ActorPlan(num_actors=2, cpus=8, gpus=1)
    assert plan_actors([Node(17, 2)], None, 0.5) == ActorPlan(num_actors=4, cpus=4, gpus=0.5)


def test_nodes_that_differ_get_an_actor_per_gpu_and_threads_by_their_own_cores() -> None:
    few, many = Node(2, 4), Node(65, 8)
    plan = plan_actors([few, many], None, None)
    assert plan == ActorPlan(num_actors=12, cpus=0.25, gpus=1)
    assert (plan.threads_on(few), plan.threads_on(many)) == (1, 8)


def test_nodes_without_a_gpu_and_a_head_without_work_hold_no_actor() -> None:
    plan = plan_actors([Node(0), Node(64), Node(17, 2)], None, None)
    assert plan == ActorPlan(num_actors=2, cpus=8, gpus=1)


def test_gpus_can_be_left_alone() -> None:
    assert plan_actors([Node(5, 2)], None, 0.0) == ActorPlan(num_actors=4, cpus=1, gpus=0)


def test_actors_that_would_wait_for_ever_are_refused() -> None:
    with pytest.raises(InputError, match=r"num_actors=4 .* Ray has, 3 CPUs: give --num_actors 2"):
        plan_actors([Node(3)], 4, None)
    with pytest.raises(InputError, match=r"1 GPUs each, .* 9 CPUs and 1 GPUs: give --num_actors 1"):
        plan_actors([Node(9, 1)], 2, 1.0)


def test_on_a_cluster_that_may_grow_a_number_means_what_it_says() -> None:
    head_only = [Node(0)]
    plan = plan_actors(head_only, 8, 1.0, may_grow=True)
    assert (plan.num_actors, plan.gpus, plan.min_actors) == (8, 1, 1)
    assert plan.cpus <= Node(2, 4).room / 4  # so that four fit on a node of 2 CPUs and 4 GPUs
    one_came = plan_actors([Node(0), Node(65, 8)], 16, 1.0, min_actors=4, may_grow=True)
    assert one_came == ActorPlan(num_actors=16, cpus=8, gpus=1, min_actors=4)


def test_a_cluster_without_anything_asks_for_a_number() -> None:
    with pytest.raises(InputError, match="Ray has 0 CPUs now: say with --num_actors how many"):
        plan_actors([Node(0)], None, None, may_grow=True)
