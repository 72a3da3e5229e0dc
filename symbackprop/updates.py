"""Optimisers as networks, so that claims about their rules are judged like any other: `m_t = β_1 m_{t-1} + (1-β_1) g_t`.

The state before a step has names of its own (`m_before`), every constant is an input, and bias-corrected moments are arrays
(`m_hat`). All of it comes from the catalogue's update equations.
"""

from __future__ import annotations

import re

from . import catalogue
from .declare import declare
from .notation import Network


def optimiser_network(name: str) -> Network:
    """The update of a catalogued optimiser as equations for one weight; the last one is the weight after the step."""
    row = catalogue.OPTIMISERS[name]
    moving = [*row.state, "w"]
    done: set[str] = set()
    equations: list[str] = []
    for text in row.equations:
        target, _, right = (part.strip() for part in text.partition("="))
        for state in moving:
            if state not in done:
                right = re.sub(rf"\b{state}\b", f"{state}_before", right)
        right = re.sub(r"\blambda\b", "decay", right)
        # What a whole moment is divided by before it is used is its bias correction.
        for state in row.state:
            for corrected in re.findall(rf"\(?\b{state}/\(1 - \w+\^t\)\)?", right):
                equations.append(f"{state}_hat = {state}/{re.search(r'/(.*?[)])', corrected)[1]}")  # type: ignore[index]
                right = right.replace(corrected, f"({state}_hat)")
        equations.append(f"{target} = {right}")
        done.add(target)
    text = "\n".join(equations)
    names = sorted(set(re.findall(r"[A-Za-z_]\w*", text)) - {"sqrt", *(e.partition(" =")[0] for e in equations)})
    return declare({"name": name, "equations": text, "inputs": names, "targets": [], "parameters": []})
