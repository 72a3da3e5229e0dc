"""Points on every branch: a claim that holds where all units are active may fail where one is not.

Whatever a network and a claim compare (relu, abs, max, where) has two sides. Points are added until both sides of each comparison
were seen, and of comparisons over the same places every combination that can be found: first by drawing, near zero and far
out, then by walking towards the other side.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import SymbackpropError
from .evidence import Evidence, Point, Setting, is_real
from .notation import data_indices

Sites = Mapping[tuple[str, int], np.ndarray]  # by how much each comparison is above its kink, at each place
Pattern = tuple[Any, ...]
_JOINT = 5  # comparisons of which every combination is looked for; of more, every pair
_SMALL = 400  # values of a network that is evaluated in no time
_STEPS = 120  # of a walk towards a side that no draw reached
_KINKS = 6  # of which both sides are tried close by
_JOINT_STEPS = 400  # of all walks towards combinations
_WALKS = 6
_TINY = 60  # values of a network of which every combination of branches is looked for


def cover(evidence: Evidence, setting: Setting, sites_at: Callable[[Point], Sites | None]) -> tuple[list[Point], list[str]]:
    """Further points for a claim: of each scale one, and whatever reaches combinations of branches that the others do not.

    `sites_at` evaluates the claim at a point in floating point and returns what was compared, or None where that fails. The
    second result names the arrays in whose equations only one side of a comparison was reached ("" for the claim itself).
    """
    seen: set[Pattern] = set()
    for point in evidence.points(setting):
        seen |= _patterns(sites_at(point.roughly()))
    first = evidence.points(setting)[0]
    small = first.work <= _SMALL
    chosen: list[Point] = []
    drawn: list[tuple[Point, Sites]] = []
    for number in range(40 if small else 10):
        point = evidence.further(setting, number)
        sites = sites_at(point) if point is not None else None
        if point is None or sites is None:
            continue
        drawn.append((point, sites))
        new = _patterns(sites) - seen
        if new or number < (14 if first.work <= _TINY else 6 if small else 3):
            seen |= new
            chosen.append(point)
    unreached: list[str] = []
    kept = _kept(evidence)
    for point in _near_kinks(drawn, sites_at) if small else ():
        chosen.append(point)
        seen |= _patterns(sites_at(point))
    walks = 24 if first.work <= _TINY else _WALKS if small else 2
    wishes = list(itertools.islice(_missing(seen, drawn), walks)) if drawn else []
    joint = max(len([w for w in wishes if len(w) > 1]), 1)
    for wanted in wishes:
        steps = _STEPS if len(wanted) == 1 else max(_JOINT_STEPS // joint, 12)
        point = _between(drawn, wanted, sites_at, steps) or _walk(drawn[0][0], wanted, sites_at, kept, steps)
        if point is not None:
            chosen.append(point)
            seen |= _patterns(sites_at(point))
        elif len(wanted) == 1:
            unreached += [label if label in evidence.names.axes else "" for label, _ in wanted]
    return chosen, list(dict.fromkeys(unreached))


def _kept(evidence: Evidence) -> frozenset[str]:
    """The arrays whose values cannot be any number: labels and indices."""
    network = evidence.names.network
    labels = {a.name for a in network.arrays if a.role == "target" and network.labels != "real"}
    return frozenset(labels | data_indices(network.equations))


def _patterns(sites: Sites | None) -> set[Pattern]:
    """Which sides were taken together, by comparisons over equally many places."""
    groups: dict[int, list[tuple[tuple[str, int], np.ndarray]]] = {}
    for site, margins in (sites or {}).items():
        groups.setdefault(margins.size, []).append((site, margins))
    found: set[Pattern] = set()
    for own in groups.values():
        together = [own] if len(own) <= _JOINT else itertools.combinations(own, 2)
        for group in together:
            names = tuple(site for site, _ in group)
            signs = np.sign(np.stack([margins for _, margins in group]))
            whole = signs[:, np.all(signs != 0, axis=0) & np.all(np.isfinite(signs), axis=0)]
            found |= {(names, tuple(row)) for row in np.unique(whole.T, axis=0).astype(int).tolist()}
    return found


def _missing(seen: set[Pattern], drawn: Iterable[tuple[Point, Sites]]) -> Iterable[Mapping[tuple[str, int], int]]:
    """The sides that were not reached, each alone first, then combinations of single numbers."""
    sites = {site for _, own in drawn for site in own}
    single = {(site, sign) for names, signs in seen for site, sign in zip(names, signs, strict=True)}
    for site in sorted(sites):
        for sign in (1, -1):
            if (site, sign) not in single:
                yield {site: sign}
    groups = {names for names, _ in seen if 1 < len(names) <= _JOINT}
    for names in sorted(groups):
        for signs in itertools.product((1, -1), repeat=len(names)):
            if (names, signs) not in seen and all((s, v) in single for s, v in zip(names, signs, strict=True)):
                yield dict(zip(names, signs, strict=True))


def _near_kinks(drawn: Sequence[tuple[Point, Sites]], sites_at: Callable[[Point], Sites | None]) -> Iterator[Point]:
    """A point on each side of each kink, near to it: far out both branches may be too close to tell."""
    for site in sorted({s for _, own in drawn for s, m in own.items() if m.size == 1})[:_KINKS]:
        have = [(p, own[site][0]) for p, own in drawn if site in own]
        pair = next(((p, q) for (p, a), (q, b) in itertools.combinations(have, 2) if a * b < 0 and p.sizes == q.sizes), None)
        if pair is None:
            continue
        at = _path(*pair)
        kink = _crossing(at, site, sites_at)
        for share in (kink + 0.03 * (1 - kink), kink - 0.03 * kink):
            point = at(share)
            if is_real(point):
                yield point


def _path(one: Point, other: Point) -> Callable[[float], Point]:
    """The points between two."""

    def at(share: float) -> Point:
        ends = ((n, np.asarray(v, dtype=float), np.asarray(other.drawn[n])) for n, v in one.drawn.items())
        return one.remade({n: (1 - share) * a + share * b for n, a, b in ends}, rough=True)

    return at


def _crossing(at: Callable[[float], Point], site: tuple[str, int], sites_at: Callable[[Point], Sites | None]) -> float:
    """How far along a path a comparison changes sides, by halving."""
    low, high = 0.0, 1.0
    start = (sites_at(at(0.0)) or {}).get(site)
    for _ in range(30):
        sites = sites_at(at((low + high) / 2))
        if start is None or sites is None or site not in sites:
            break
        if sites[site][0] * start[0] > 0:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return (low + high) / 2


def _between(
    drawn: Sequence[tuple[Point, Sites]],
    wanted: Mapping[tuple[str, int], int],
    sites_at: Callable[[Point], Sites | None],
    steps: int,
) -> Point | None:
    """A point on the wanted sides between two that were drawn: the kinks along the way are found by halving."""
    for (one, first), (other, second) in itertools.islice(itertools.combinations(drawn, 2), max(steps // 30, 1)):
        if one.sizes != other.sizes or any(s not in first or s not in second or first[s].size != 1 for s in wanted):
            continue
        crossing = [s for s in wanted if first[s][0] * second[s][0] < 0]

        at = _path(one, other)
        kinks = [0.0, 1.0, *(_crossing(at, site, sites_at) for site in crossing)]
        for a, b in itertools.pairwise(sorted(kinks)):
            point = at((a + b) / 2)
            sites = sites_at(point)
            if sites is not None and is_real(point) and all(s in sites and sites[s][0] * sign > 0 for s, sign in wanted.items()):
                return point
    return None


def _walk(
    point: Point,
    wanted: Mapping[tuple[str, int], int],
    sites_at: Callable[[Point], Sites | None],
    kept: Collection[str],
    steps: int,
) -> Point | None:
    """A point on the wanted sides, by steps that bring the farthest of them nearer; None where none is found."""
    rng = random.Random(3)

    def score(at: Point) -> float:
        sites = sites_at(at)
        if sites is None or any(s not in sites or not sites[s].size for s in wanted):
            return -np.inf
        each = np.stack(np.broadcast_arrays(*(sites[s] * sign for s, sign in wanted.items())))
        worst = np.nan_to_num(each, nan=-np.inf).min(axis=0)
        return float(worst.max())

    best = score(point)
    for _ in range(steps):
        names = sorted(n for n, v in point.drawn.items() if np.size(v) and n not in kept)
        if not names or best > 0:
            break
        name = rng.choice(names)
        values = np.array(point.drawn[name], dtype=float)
        step = rng.choice((-1.0, 2.0, 4.0, 0.5, -8.0, 0.0, 0.0, 0.0))
        values = values * step if step else values + rng.choice((-1, 1)) * rng.choice((0.1, 0.5, 2.0, 10.0, 100.0))
        try:
            new = point.remade(point.drawn | {name: values}, rough=True)
            reached = score(new) if is_real(new) else -np.inf
        except SymbackpropError:
            continue
        if reached > best:
            point, best = new, reached
    return point if best > 0 else None
