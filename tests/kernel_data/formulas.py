"""Formulas, by NumPy's form of them: over one set of arrays and over many, their numbers by value and on the device."""

from functools import partial

import numpy as np

import kobai
from kobai.formula.cuda_code import THREADS
from kobai.formula.elementwise import ELEMENTWISE
from kobai.formula.numpy_code import ArrayCode
from kobai.optim import _formulas, adam, radam


def _halves(values):
    """Numbers near these that every dtype has: comparisons come out alike in all."""
    return values.astype(kobai.bfloat16).astype(np.float16).astype(np.float64)


def _example(code, rng, n, numbers):
    """Arrays for all slots, and what they hold afterwards."""
    # The first state large: v − ḡ² of centred RMSprop has to stay positive.
    before = [rng.uniform(0.5, 1.5, n) * (rng.choice([-1, 1], n) if k < 2 else 1) for k in range(code.slots)]
    if code.slots > 2:
        before[2] += 5
    before = [_halves(a) for a in before]
    after = [a.copy() for a in before]
    ArrayCode(code.formula).run(np, np.float64)(*after, *map(np.array, numbers))
    return before, after


def _given(code, rng, on_device):
    """The formula's numbers, and the arguments that they are: none, a tuple, or an array."""
    numbers = tuple(_halves(rng.uniform(0.2, 0.8, len(code.formula.scalars))).tolist())
    if "skip" in code.formula.scalars:
        numbers = (*numbers[:-1], float(on_device))
    return numbers, ((np.array(numbers) if on_device else numbers,) if numbers else ())


def _one(code, on_device, rng):
    n = 2 * THREADS * 4 + 7
    numbers, given = _given(code, rng, on_device)
    before, after = _example(code, rng, n, numbers)
    return 2, (*before, *given, n), {f"a{k}": after[k] for k in range(code.slots)}


def _many(code, on_device, rng):
    numbers, given = _given(code, rng, on_device)
    sizes = [1, 2 * THREADS * 4 + 3, 0, 600]
    sets = [_example(code, rng, n, numbers) for n in sizes]
    before, after = ([[one[when][k] for one in sets] for k in range(code.slots)] for when in (0, 1))
    args = ({"at": before, "size": np.array(sizes)}, *given)
    return (2, len(sizes)), args, {"table": [a for row in after for a in row]}


def _codes(kernel):
    """The kernels in CUDA C that may come to be launched: over many arrays if the formula updates arrays."""
    formula, n = kernel.formula, len(kernel.formula.arrays)
    if set(formula.names) <= set(formula.arrays):
        return [(_many, kernel.code().cuda)]
    places = [tuple(range(n, n + len(formula.results))), *([(0,)] if n == len(formula.results) == 1 else [])]
    return [(_one, kernel.code(into).cuda) for into in places]


def _both(check, code):
    return [partial(check, code, on_device) for on_device in ((False, True) if code.formula.scalars else (False,))]


SKIPPING = [adam.adam.unless(), radam.radam.after(_formulas.decayed).unless()]
"""Of the kernels that a scaler may skip, which come of all the updates; made here, so that they are among the others."""

CHECKS = {
    (code.many if check is _many else code.one).name: _both(check, code)
    for kernel in ELEMENTWISE
    for check, code in _codes(kernel)
}
