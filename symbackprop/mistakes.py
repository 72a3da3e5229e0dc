"""All that may go wrong in one place of a backward pass, the likelier first: for claims and for hand-written code alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .misderived import above, activations, extra_activations, other_activations, paths, shared_factors, signs
from .misplaced import applied_twice, counts, diagonals, ends, exchanged, turned
from .missteps import Misstep, Program
from .miswritten import common, parts, small_constants, updates
from .notation import Derivation


def mistakes(derivation: Derivation, within: set[str] | None = None) -> Iterator[Misstep]:
    """One misstep after the other; `within` keeps to the equations of some derivatives."""
    program = Program(derivation, within)
    for family in _FAMILIES:
        yield from family(program)


def wholes(program: Program) -> Iterator[Misstep]:
    """A derivative with a constant factor."""
    for e in reversed(program.derivation.raw):
        if e.name in program.own:
            yield Misstep(f"{e.name} is zero", e.name, {e.name: replace(e, terms=())}, "scale")


_FAMILIES: tuple[Callable[[Program], Iterator[Misstep]], ...] = (
    wholes,
    paths,
    activations,
    signs,
    above,
    small_constants,
    updates,
    other_activations,
    shared_factors,
    diagonals,
    counts,
    common,
    parts,
    turned,
    ends,
    exchanged,
    applied_twice,
    extra_activations,
)
