"""What is printed means what was declared: random formulas keep their value when they are printed and read back."""

import random
import types

import numpy as np
import pytest

from symbackprop import check, declare, derive, emit
from symbackprop.latex import LatexWriter
from symbackprop.unicode_text import TextWriter
from symbackprop.write import Writer, style_of

from .conftest import oracle

SIZES = {"n": 3, "k": 2}
ARRAYS = {"x": ("n", "k"), "y": ("n",), "W": ("k",), "b": (), "c": ()}
KEPT = [1, 2, 3, "0.5", "1/3"]


def formula(rng, letters, depth):
    """A random formula whose elements have some of the letters."""

    def inner(more=()):
        return formula(rng, (*letters, *more), depth - 1)

    leaves = [f"{a}[{','.join(own)}]" if own else a for a, own in ARRAYS.items() if set(own) <= set(letters)]
    if depth == 0:
        return str(rng.choice([*leaves, *leaves, *KEPT, "N", "K"]))
    free = [i for i in SIZES if i not in letters]
    kinds = [
        "sum",
        "difference",
        "difference",
        "product",
        "quotient",
        "quotient",
        "power",
        "function",
        "minus",
        "leaf",
        "constant",
    ]
    kind = rng.choice([*kinds, *["reduction"] * 3 * bool(free), *["fraction"] * 2 * bool(free)])
    if kind == "leaf":
        return formula(rng, letters, 0)
    if kind == "constant":
        a, b = rng.choice(KEPT), rng.choice([*leaves, "N", "K"])
        return rng.choice([f"({a} - {b})", f"({b} - {a})", f"(1 - {b}^2)", f"({b}^2 - 1)", f"(2*{b} - 1)"])
    if kind == "sum":
        return f"({inner()} + {inner()})"
    if kind == "difference":
        return f"({inner()} - {inner()})"
    if kind == "product":
        return f"{inner()}*{inner()}"
    if kind == "quotient":
        return f"{inner()}/({inner()} + {rng.choice(['1', 'N', 'b', '-3'])})"
    if kind == "power":
        return f"({inner()})^{rng.choice([2, 3, 2, -1, -2])}"
    if kind == "function":
        return f"{rng.choice(['tanh', 'exp', 'sin', 'abs', 'sigmoid', 'relu'])}({rng.choice(['', '-'])}{inner()}/3)"
    if kind == "minus":
        return f"(-{inner()})"
    letter = rng.choice(free)
    if kind == "fraction":  # a sum over something that is written with a minus
        below = rng.choice([f"({letter.upper()} - 1)", "(2*b - 1)", "(1 - c)", "(b - c)", "(1 - N)*(2 - K)", "(b^2 - 1)"])
        return f"{rng.choice(['sum', 'mean'])}({letter}, {inner((letter,))})/{below}"
    return (
        f"{rng.choice(['sum', 'mean', 'max', 'logsumexp'])}({letter}, {inner((letter,))} + {'y[n]' if letter == 'n' else 'W[k]'})"
    )


def network(text):
    """A network whose loss is a formula of scalars."""
    names = [f"{a}[{','.join(own)}]" if own else a for a, own in ARRAYS.items()]
    return {"equations": text, "parameters": names, "sizes": SIZES}


def declared(seed):
    """A random network and a point, or None where the formula has no derivative or no value there."""
    rng = random.Random(seed)
    try:
        found = declare(network(f"L = b*{formula(rng, (), 4)} + c"))
    except Exception as problem:
        assert type(problem).__module__.startswith("symbackprop"), problem
        return None
    point = {
        a: np.array([round(rng.uniform(0.2, 1.8), 2) for _ in range(count(own))]).reshape(shape(own)) for a, own in ARRAYS.items()
    }
    try:
        value = oracle(found, point, SIZES, found.equations)["L"][()]
    except (ZeroDivisionError, TypeError, OverflowError):
        return None
    return (found, point, value) if np.isfinite(value) and 1e-6 < abs(value) < 1e9 else None


def shape(own):
    return tuple(SIZES[i] for i in own)


def count(own):
    return int(np.prod(shape(own)))


def test_formula_text_reads_back_as_what_it_was(sweep):
    seen = 0
    for seed in range(3000 if sweep else 150):
        if (found := declared(seed)) is None:
            continue
        first, point, value = found
        text = "\n".join(Writer(style_of(first)).equation(e) for e in first.equations)
        again = oracle(second := declare(network(text)), point, SIZES, second.equations)["L"][()]
        assert again == pytest.approx(value, rel=1e-9), (seed, text)
        seen += 1
    assert seen > (1000 if sweep else 50)


def test_derivatives_are_printed_as_they_are(sweep):
    """Formula text, Unicode and LaTeX of every derivative are no wrong claims about it."""
    verdicts = []
    for seed in range(300 if sweep else 5):
        if (found := declared(seed)) is None:
            continue
        derivation = derive(found[0])
        style = style_of(derivation.network, derivation.adjoints)
        for e in derivation.equations:
            if e.name in [derivation.adjoints[w] for w in derivation.wrt]:
                for writer in (Writer, TextWriter, LatexWriter):
                    text = writer(style).equation(e)
                    verdict = check(derivation, text)
                    assert verdict.verdict != "refuted", (seed, text, str(verdict))
                    verdicts.append(verdict.verdict)
    assert verdicts.count("not understood") < len(verdicts) / 3


def test_emitted_code_computes_what_was_declared(sweep):
    for seed in range(400 if sweep else 12):
        if (found := declared(seed)) is None:
            continue
        first, point, value = found
        for style in ("plain", "fast"):
            module = types.ModuleType("emitted")
            exec(emit(first, style=style), module.__dict__)
            with np.errstate(all="ignore"):
                assert module.loss(point, {}) == pytest.approx(value, rel=1e-7), (seed, str(first))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("L = sum(n, y[n]^2)/(N - 1)", "sum(n, y[n]**2)/(N - 1)"),
        ("L = sum(n, y[n]^2)/(2*b - 1)", "sum(n, y[n]**2)/(2*b - 1)"),
        ("L = -sum(n, y[n]^2)/(2*b - 1)", "sum(n, y[n]**2)/(1 - 2*b)"),
        ("L = sum(n, y[n])*(b^2 - 1)/(c - 1)", "(1 - b**2)/(1 - c)*sum(n, y[n])"),
        ("L = exp(1)*b", "exp(1)*b"),
    ],
)
def test_a_sign_before_a_sum_is_kept(text, printed):
    found = declare(network(text))
    assert Writer(style_of(found)).terms(found.equations[-1].terms) == printed


def test_a_size_that_makes_the_formula_infinite_is_told():
    from symbackprop import NetworkError, explain

    derivation = derive({"equations": "L = sum(n, y[n]^2)/(N - 1)", "parameters": ["y[n]"], "sizes": {"n": 1}})
    with pytest.raises(NetworkError, match="divides by zero"):
        explain(derivation, form="scalar")


def test_places_are_counted_from_0_as_values_and_from_1_in_names():
    from symbackprop import explain

    derivation = derive({"equations": "L = sum(n, n*y[n]^2)", "parameters": ["y[n]"], "sizes": {"n": 3}})
    text = explain(derivation, form="scalar")
    assert "∂L/∂y[1] = 0\n" in text
    assert "∂L/∂y[3] = 4·y[3]\n" in text
