"""The classes of formats that do not list them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.datasets.faults import Fault, FaultKind
from pipelines.errors import InputError


@dataclass(frozen=True)
class Classes:
    """Class ids by name: of the given names, or of all that the annotations have."""

    ids: Mapping[str, int]
    are_given: bool

    @staticmethod
    def of(given: Sequence[str], found: Iterable[str]) -> "Classes":
        """In the order given, or else in alphabetical order.

        Raises:
            InputError: a name is given twice.
        """
        names = list(given) or sorted({*found} - {""})
        if len(set(names)) < len(names):
            raise InputError(f"--classes names one of {names} twice: name each once")
        return Classes({name: index for index, name in enumerate(names)}, bool(given))

    def id_of(self, name: str, where: str) -> int:
        """Raises Fault: it is none of them."""
        if name in self.ids:
            return self.ids[name]
        if not name:
            raise Fault(FaultKind.UNKNOWN_CLASS, where, "it has no class")
        # Without given names all are known.
        raise Fault(FaultKind.UNWANTED_CLASS, where, f"{name!r} is none of --classes")
