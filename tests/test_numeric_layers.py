"""Every layer of the catalogue against PyTorch at odd sizes, random compositions, memory, and what is refused.

A network here is a shape and a list of `Layer`s: each spells itself for the chain and computes itself with PyTorch from
the same parameters, so that a list gives both the chain and what to compare the emitted module with.
"""

import itertools
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from symbackprop import SymbackpropError, emit
from symbackprop.catalogue import LAYER_NAMES
from symbackprop.chain import BRANCHES

from .test_numeric_gradients import ACTIVATE

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Layer:
    """`apply` takes the layer's own parameters without their number and x; for a branch, what enters and what leaves it."""

    text: str
    apply: Callable
    inner: tuple["Layer", ...] = ()


def spell(name, *arguments, **options):
    """`conv(4, 3x2, relu, stride=2)`; what is None is left out."""

    def one(value):
        return "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value

    given = [str(one(a)) for a in arguments if a is not None]
    given += [f"{k}={one(v)}" for k, v in options.items() if v is not None]
    return f"{name}({', '.join(given)})" if given else name
