"""Which buffer a value lies in: buffers are lent, given back and lent again, also parts of them for other shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from .contractions import Shape

Length = tuple[int, tuple[str, ...]]  # a number, times sizes that are not known
_LARGE = 4096  # numbers below which a buffer of its own costs nothing
_SHARE = 2  # an array fills at least one part in so many of the buffer of another shape that it lies in


@dataclass
class Rooms:
    """Buffers by name, and rooms: memory that one or several buffers, views of different shapes, lie in.

    `length` says how many numbers a shape has, `typical` how many a size that is not known may stand for.
    """

    length: Callable[[Shape], Length]
    typical: int
    buffers: dict[str, None] = field(default_factory=dict[str, None])
    _room: dict[str, int] = field(default_factory=dict[str, int])
    _views: dict[int, dict[Shape, str]] = field(default_factory=dict[int, dict[Shape, str]])
    _lengths: dict[int, tuple[Length, str]] = field(default_factory=dict[int, tuple[Length, str]])
    _free: list[int] = field(default_factory=list[int])

    def copy(self) -> Rooms:
        """The state, to come back to."""
        fields = self._room.copy(), self._views.copy(), self._lengths.copy(), self._free.copy()
        return Rooms(self.length, self.typical, self.buffers.copy(), *fields)

    def borrow(self, shape: Shape, kind: str) -> str | None:
        """A free buffer of a shape, the one that was given back last."""
        for room in reversed(self._free):
            if shape in self._views[room] and self._lengths[room][1] == kind:
                self._free.remove(room)
                return self._views[room][shape]
        return None

    def share(self, name: str, shape: Shape, kind: str, bound: Collection[str]) -> str | None:
        """A free buffer of another shape that a new one may be part of: the smallest that is large enough, and `bound` by now."""
        number, sizes = self.length(shape)
        if number * self.typical ** len(sizes) < _LARGE:
            return None
        fitting: list[tuple[int, int, str]] = []
        for room in self._free:
            (other, factors), own = self._lengths[room]
            first = next(iter(self._views[room].values()))
            if own == kind and factors == sizes and number <= other <= _SHARE * number and first in bound:
                fitting.append((other, room, first))
        if not fitting:
            return None
        _, room, first = min(fitting)
        self._free.remove(room)
        self.view(name, shape, first)
        self.buffers[name] = None
        return first

    def make(self, name: str, shape: Shape, kind: str = "number") -> None:
        """A new buffer in a room of its own."""
        room = len(self._lengths)
        self.buffers[name] = None
        self._room[name], self._views[room], self._lengths[room] = room, {shape: name}, (self.length(shape), kind)

    def view(self, name: str, shape: Shape, of: str) -> None:
        """Another name for what lies in the room of a buffer, with a shape of its own."""
        room = self._room[name] = self._room[of]
        self._views[room] = {**self._views[room], shape: name}

    def keep(self, name: str) -> None:
        """A buffer that nothing else ever lies in."""
        self.buffers[name] = None

    def drop(self, names: Iterable[str]) -> None:
        """Buffers that are not needed after all."""
        for name in names:
            self.buffers.pop(name, None)

    def give_back(self, name: str) -> None:
        """A buffer whose value is not read any more."""
        self._free.append(self._room[name])
