"""Share a cluster out among detectors: how many there are, and what each one reserves of its node.

Whole nodes are looked at, since an actor lies on one: two nodes of 8 cores hold no actor of 14.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.errors import InputError

_PARTS_OF_A_CORE = (0.5, 0.25, 0.1)
"""What an actor reserves where its node has fewer cores than GPUs. It decodes all the same."""


@dataclass(frozen=True)
class Node:
    """What Ray has on one machine."""

    cpus: float
    gpus: float = 0.0

    @property
    def room(self) -> float:
        """CPUs for detectors: one, or half of the only one, is left for fetching and writing."""
        return self.cpus - min(1.0, self.cpus / 2)

    def holds(self, cpus: float, gpus: float) -> int:
        """How many actors that reserve so much."""
        by_cpus = math.floor(self.room / cpus + 1e-9)
        return min(by_cpus, math.floor(self.gpus / gpus + 1e-9)) if gpus else by_cpus


@dataclass(frozen=True)
class ActorPlan:
    """How many actors are to run, and what each one reserves."""

    num_actors: int
    cpus: float
    """Of its node, least of all nodes; below 1 where there are more GPUs than cores."""
    gpus: float
    min_actors: int = 1
    """With fewer the run waits, and in the end gives up."""

    def threads_on(self, node: Node) -> int:
        """Threads that one actor may use on its node, which may have more cores than the least."""
        if not self.gpus:
            return max(1, int(self.cpus))
        return max(1, int(node.room) // max(1, math.floor(node.gpus / self.gpus)))


def plan_actors(
    nodes: Sequence[Node],
    num_actors: int | None,
    gpus_per_actor: float | None,
    min_actors: int = 1,
    *,
    may_grow: bool = False,
) -> ActorPlan:
    """Share nodes out among the detectors, with something of each kept for fetching and writing.

    With GPUs, one actor per `gpus_per_actor`, and the cores of a node divided among its actors;
    nodes without a GPU fetch and write. Without, one actor per core: two processes of one thread
    each beat one process of two.

    Args:
        may_grow: whether the cluster may get nodes that it has not, for a number that was given.

    Raises:
        InputError: the cluster can never hold these actors; Ray would wait for ever.
    """
    has_gpus = any(node.gpus for node in nodes)
    gpus = float(has_gpus) if gpus_per_actor is None else gpus_per_actor
    able = [node for node in nodes if node.cpus and node.gpus >= gpus]
    wanted = num_actors or _places(able, gpus)
    if not wanted:
        raise InputError(
            f"Ray has {_told(nodes, gpus)} now: say with --num_actors how many detectors there are "
            "to be (and with --gpus_per_actor what each one gets), and the run waits for them"
        )
    cpus = next((c for c in _shares(able, gpus) if _held(able, c, gpus) >= wanted), None)
    if cpus is None and not may_grow:
        raise InputError(_too_many(able, nodes, wanted, gpus))
    cpus = cpus or _share_of_what_comes(able, gpus)
    return ActorPlan(wanted, cpus, gpus, min(wanted, min_actors))


def _places(able: Sequence[Node], gpus: float) -> int:
    """How many actors the nodes hold, if each gets what it should."""
    if gpus:
        return sum(math.floor(node.gpus / gpus + 1e-9) for node in able)
    return _held(able, 1, 0) or _held(able, _PARTS_OF_A_CORE[0], 0)


def _held(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    return sum(node.holds(cpus, gpus) for node in nodes)


def _shares(nodes: Sequence[Node], gpus: float) -> Iterator[float]:
    """What an actor might reserve, falling: whole cores, or a part of one where it has to be."""
    most = int(max((node.room for node in nodes), default=0))
    yield from map(float, range(most, 0, -1))
    if gpus or not most:
        yield from _PARTS_OF_A_CORE


def _share_of_what_comes(able: Sequence[Node], gpus: float) -> float:
    """What fits beside the GPUs of every node there is; where there is none, beside any."""
    if not gpus:
        return 1.0
    fitting = (c for c in _shares(able, gpus) if _held(able, c, gpus) == _places(able, gpus))
    return next(fitting, _PARTS_OF_A_CORE[-1]) if able else _PARTS_OF_A_CORE[1]


def _too_many(able: Sequence[Node], nodes: Sequence[Node], wanted: int, gpus: float) -> str:
    most = _held(able, _PARTS_OF_A_CORE[-1] if gpus else 1, gpus)
    each = f"{gpus:g} GPUs" if gpus else "one core"
    way_out = f"give --num_actors {most} or fewer" if most else "give a smaller --gpus_per_actor"
    return (
        f"num_actors={wanted} with {each} each, and something left for fetching and writing, needs "
        f"more than Ray has, {_told(nodes, gpus)}: {way_out}"
    )


def _told(nodes: Sequence[Node], gpus: float) -> str:
    cpus = f"{sum(node.cpus for node in nodes):g} CPUs"
    return f"{cpus} and {sum(node.gpus for node in nodes):g} GPUs" if gpus else cpus
