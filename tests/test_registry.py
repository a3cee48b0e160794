"""Every primitive, examined from the registry alone: gradients, dtypes, layouts, in-place safety, equality of backends."""

from __future__ import annotations

from contextlib import suppress
from types import FunctionType

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai import xp
from kobai.core.primitive import REGISTRY
from kobai.core.tape import owner
from kobai.core.tensor import Tensor
from kobai.gradcheck import worst_mismatch

CASES = [(name, i) for name, p in sorted(REGISTRY.items()) for i in range(len(p.samples))]
IDS = [f"{name}-{i}" for name, i in CASES]


def case(test):
    """A test of every sample of every primitive, of which the first are quick (``shares.py``)."""
    return pytest.mark.few(i=0)(pytest.mark.parametrize(("name", "i"), CASES, ids=IDS)(test))


def sample(name: str, i: int) -> tuple[tuple, dict]:
    args = REGISTRY[name].samples[i](np.random.default_rng(i))
    return (args[:-1], args[-1]) if args and isinstance(args[-1], dict) else (args, {})


def is_float(arg: object) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def tensors(args: tuple, dtype: type = np.float64, grad: bool = True) -> list:
    """Arrays of a sample as tensors on the default device; float arrays require a gradient."""
    made = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            array = xp.asarray(arg.astype(dtype) if is_float(arg) else arg, device=xp.default_device())
            made.append(Tensor._wrap(array, requires_grad=grad and is_float(arg)))
        else:
            made.append(arg)
    return made


def run(name: str, args: list, options: dict, plain: bool = False) -> Tensor:
    kobai.manual_seed(7)  # primitives that draw masks draw the same ones
    return (REGISTRY[name].plain if plain else REGISTRY[name].op)(*args, **options)


def grads(args: list) -> list:
    return [
        np.zeros(a.shape) if a.grad is None else xp.to_host(a.grad.array)
        for a in args
        if isinstance(a, Tensor) and a.requires_grad
    ]


def cotangent(y: Tensor) -> Tensor:
    host = np.random.default_rng(3).standard_normal(y.shape).astype(y.dtype)
    return Tensor._wrap(xp.asarray(host, device=y.device))


def test_the_registry_is_not_empty():
    assert len(REGISTRY) > 60


def test_every_primitive_has_a_sample_with_a_gradient_and_one_without_elements_or_a_reason():
    lacking = [n for n, p in REGISTRY.items() if not p.samples]
    assert not lacking


@case
def test_gradient_agrees_with_central_differences(name, i, backend):
    args, options = sample(name, i)
    made = tensors(args)
    if not any(isinstance(a, Tensor) and a.requires_grad for a in made) or not run(name, made, options).requires_grad:
        pytest.skip("nothing to differentiate")
    worst = worst_mismatch(lambda *xs: run(name, list(xs), options), made)
    assert worst.error < 1e-6, str(worst)


@case
def test_floats_of_floats_have_a_gradient(name, i):
    """Also where it is zero, as between the steps of a rounding: the result requires one, and backward() runs."""
    args, options = sample(name, i)
    made = tensors(args)
    y = run(name, made, options)
    if any(isinstance(a, Tensor) and a.requires_grad for a in made) and y.is_floating_point():
        assert y.requires_grad


OF_INTEGERS = {name: name.rpartition(".")[2].strip("_") for name, p in REGISTRY.items() if p.kind == "elementwise"}
PUBLIC = sorted(name for name, public in OF_INTEGERS.items() if hasattr(kobai, public) or hasattr(F, public))


@pytest.mark.parametrize("name", PUBLIC)
def test_integers_are_taken_or_refused_by_every_backend_alike(name, backend):
    function = getattr(kobai, OF_INTEGERS[name], None) or getattr(F, OF_INTEGERS[name])
    args, options = sample(name, 0)
    rounded = tuple(np.rint(arg).astype(np.int64) if is_float(arg) else arg for arg in args)
    outcomes = []
    for where in ("numpy", backend):
        with kobai.using(where):
            try:
                outcomes.append(function(*tensors(rounded), **options).cpu())
            except (TypeError, RuntimeError, NotImplementedError) as error:
                outcomes.append(type(error))
    expected, found = outcomes
    if isinstance(expected, type):
        assert found is expected
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)


@case
def test_float32_in_float32_out(name, i, backend):
    args, options = sample(name, i)
    if name.endswith("._cast"):
        pytest.skip("its purpose is to change the dtype")
    made = tensors(args, np.float32)
    y = run(name, made, options)
    if any(is_float(a) for a in args) and y.is_floating_point():
        assert y.dtype == np.float32
    if y.requires_grad:
        y.backward(cotangent(y))
        for a in made:
            if isinstance(a, Tensor) and a.grad is not None:
                assert a.grad.dtype == np.float32
                assert a.grad.shape == a.shape


@case
def test_same_result_on_the_strict_backend(name, i):
    args, options = sample(name, i)
    outcomes = []
    for where in ("numpy", "strict"):
        with kobai.using(where):
            made = tensors(args)
            y = run(name, made, options)
            if y.requires_grad:
                y.backward(cotangent(y))
            outcomes.append([xp.to_host(y.array), *grads(made)])
    for left, right in zip(*outcomes, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-13, atol=1e-13)


@case
def test_non_contiguous_input_gives_the_same_result(name, i):
    args, options = sample(name, i)
    spread = []
    for arg in args:
        if isinstance(arg, np.ndarray) and arg.ndim:
            wide = np.zeros((*arg.shape[:-1], 2 * arg.shape[-1]), arg.dtype)
            wide[..., ::2] = arg
            spread.append(wide[..., ::2])
        else:
            spread.append(arg)
    results = []
    by_columns = [a.T.copy().T if isinstance(a, np.ndarray) else a for a in args]
    for version in (args, spread, by_columns):
        made = [Tensor._wrap(a, requires_grad=is_float(a)) if isinstance(a, np.ndarray) else a for a in version]
        y = run(name, made, options)
        if y.requires_grad:
            y.backward(cotangent(y))
        results.append([np.array(y.detach().array), *grads(made)])
    for wanted, *others in zip(*results, strict=True):
        for found in others:
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@case
def test_inputs_and_the_incoming_gradient_are_not_written_to(name, i):
    args, options = sample(name, i)
    made = tensors(args)
    before = [a.array.copy() for a in made if isinstance(a, Tensor)]
    y = run(name, made, options)
    if y.requires_grad:
        dy = cotangent(y)
        kept = dy.array.copy()
        y.backward(dy)
        np.testing.assert_array_equal(dy.array, kept)
    for a, b in zip([a for a in made if isinstance(a, Tensor)], before, strict=True):
        np.testing.assert_array_equal(a.array, b)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@case
def test_what_a_vjp_computes_is_held_by_nobody_else(name, i, dtype):
    """Backward adds other gradients to it in place, unless it lies in dy: not so operands, the result, other gradients."""
    args, options = sample(name, i)
    made = tensors(args, dtype)
    y = run(name, made, options)
    if y._node is None:
        pytest.skip("nothing to differentiate")
    dy = cotangent(y).array
    known = [dy, y.array, *[a.array for a in made if isinstance(a, Tensor)]]
    for _ in range(2):  # as with retain_graph
        for edge, g in zip(y._node.edges, y._node.gradients(dy), strict=False):
            if edge is not None and type(g) is FunctionType:
                found = g()
                if owner(found) is not owner(dy):
                    assert not any(np.may_share_memory(found, other) for other in known)
                known.append(found)


EXTREMES = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 0.0, 1e-45, 1.0])


@case
def test_infinite_and_huge_numbers_pass_through_without_a_warning(name, i):
    """As on a GPU and in PyTorch. In these tests warnings are errors, but for those of ufuncs in Kobai's own lines (xp.py)."""
    args, options = sample(name, i)
    for numbers in (EXTREMES, EXTREMES[3:5], EXTREMES[:1]):
        drawn = [np.random.default_rng(i).choice(numbers, a.shape) if is_float(a) else a for a in args]
        with np.errstate(all="ignore"):
            made = tensors(drawn, np.float32)
        with suppress(ValueError, np.linalg.LinAlgError):  # where the operation refuses them: a probability of 3e38
            y = run(name, made, options)
            if y.requires_grad:
                y.backward(cotangent(y))


@case
def test_an_in_place_change_never_gives_a_wrong_gradient(name, i):
    """Changing an input or the output after the operation either raises in backward or leaves the gradient right."""
    args, options = sample(name, i)
    reference = tensors(args)
    y = run(name, reference, options)
    if not y.requires_grad:
        pytest.skip("nothing to differentiate")
    dy = cotangent(y)
    y.backward(dy)
    wanted = grads(reference)
    for victim in range(len(args) + 1):
        made = tensors(args)
        y = run(name, made, options)
        target = y if victim == len(args) else made[victim]
        if not isinstance(target, Tensor) or not target.is_floating_point() or target.numel() == 0:
            continue
        if not target.array.flags.writeable:
            continue  # an expanded view, in which one place in memory stands for many elements
        target.array[...] = target.array + 1.0
        target._bump()
        try:
            y.backward(dy)
        except RuntimeError as error:
            assert "changed in place" in str(error)  # noqa: PT017
            continue
        for left, right in zip(grads(made), wanted, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-12)


@case
def test_unwanted_gradients_are_not_computed_for_inputs_that_need_none(name, i):
    """Each input in turn alone requires a gradient: it gets the same one as when all do."""
    args, options = sample(name, i)
    made = tensors(args)
    y = run(name, made, options)
    if not y.requires_grad:
        pytest.skip("nothing to differentiate")
    y.backward(cotangent(y))
    for k, full in enumerate(made):
        if not isinstance(full, Tensor) or not full.requires_grad:
            continue
        alone = tensors(args, grad=False)
        alone[k].requires_grad_()
        y = run(name, alone, options)
        if y.requires_grad:
            y.backward(cotangent(y))
        left = None if full.grad is None else full.grad.array
        right = None if alone[k].grad is None else alone[k].grad.array
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-14)


ELEMENTWISE = sorted(n for n, p in REGISTRY.items() if p.kind == "elementwise")


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(0,), (1,), (0, 3), (2, 0, 3), (1, 1, 1), ()], ids=str)
def test_elementwise_primitives_take_any_shape(name, shape, backend):
    args, options = sample(name, 0)
    filled = [np.resize(a, shape) if is_float(a) else a for a in args]
    made = tensors(tuple(filled))
    y = run(name, made, options)
    assert y.shape == shape
    if y.requires_grad:
        y.backward(cotangent(y))
        assert all(g.shape == shape for g in grads(made) if g is not None)


# --- 16-bit numbers ---------------------------------------------------------------------------------------------------


def enlarged(args: tuple, times: int, factor: float) -> tuple:
    """Float arrays times ``factor``, and all arrays repeated along every dimension that is not 1, as shapes must agree."""
    made = [a * factor if is_float(a) else a for a in args]
    return tuple(
        np.tile(a, [1 if n == 1 else times for n in a.shape]) if isinstance(a, np.ndarray) and a.ndim else a
        for a in (np.asarray(a) if isinstance(a, np.generic) else a for a in made)
    )


def outcome(name: str, args: tuple, options: dict, dtype: type, half: np.dtype) -> list:
    """Result and gradients of a sample whose numbers are all of ``half``, computed in ``dtype``."""
    made = [
        Tensor._wrap(np.array(a).astype(half).astype(dtype), requires_grad=True)
        if is_float(a)
        else Tensor._wrap(np.array(a))
        if isinstance(a, np.ndarray)
        else a
        for a in args
    ]
    y = run(name, made, options, plain=True)
    if not y.is_floating_point() or not y.requires_grad:
        return [y.detach().array]
    y.backward(Tensor._wrap(np.random.default_rng(3).uniform(0.5, 1, y.shape).astype(half).astype(dtype)))
    grads = [a.grad.array for a in made if isinstance(a, Tensor) and a.grad is not None]
    return [y.detach().array, *grads]


SHAPED = (np.ndarray, np.generic, int, float, str, type(None))
"""Arguments that say nothing about sizes; a tuple may be axes, of which the shape says nothing either."""


TRIANGLES = ("linalg.factors.eigen", "linalg.factors.eigenvalues")

HALVES = {"float16": (kobai.float16.dtype, 6e-5, 6e4), "bfloat16": (kobai.bfloat16.dtype, 1.2e-38, 3e38)}
"""With the least and the greatest of their numbers that have all digits."""


@pytest.mark.parametrize(
    "circumstances",
    ["float16", "float16 large", "float16 long", "float16 long large", "bfloat16", "bfloat16 long large"],
)
@case
def test_16_bits_are_what_float64_gives_rounded_once(name, i, circumstances):
    """Squares of 300 overflow in float16, and sums beyond 2048 (in bfloat16, 256) lose ones: so they must be computed in
    a wider dtype."""
    half, least, most = HALVES[circumstances.split()[0]]
    if name in TRIANGLES or (name.startswith("linalg.factors") and "long" in circumstances):
        pytest.skip("symmetric only up to 16 bits, or rows that are equal: vectors are not determined")
    long, factor = "long" in circumstances, 200 if "large" in circumstances else 1
    args, options = sample(name, i)
    if not any(is_float(a) for a in args) or name == "ops._args._cast":
        pytest.skip("no floats")
    times = 1
    if long:
        if not all(isinstance(a, SHAPED) or type(a) is tuple for a in (*args, *options.values())):
            pytest.skip("its arguments hold sizes")
        sizes = [(max(np.size(a), 1), np.ndim(a)) for a in args if isinstance(a, np.ndarray)]
        times = next(k for k in (40, 12, 6, 4, 3, 2, 1) if k == 1 or sum(n * k**d for n, d in sizes) < 30000)
    args = enlarged(args, times, factor)
    with np.errstate(all="ignore"):
        try:
            wanted = outcome(name, args, options, np.float64, half)
        except (ValueError, RuntimeError, IndexError, np.linalg.LinAlgError):
            if times == 1 and factor == 1:
                raise
            pytest.skip("the enlarged sample means nothing")
        found = outcome(name, args, options, half, half)
        single = outcome(name, args, options, np.float32, half)
        for a, b, c in zip(found, wanted, single, strict=True):
            if b.dtype.kind != "f":
                np.testing.assert_array_equal(a, b)
                continue
            assert a.dtype == half
            step = np.spacing(np.abs(b).clip(least, most).astype(half)).astype(np.float64)
            rounded, got = b.astype(half).astype(np.float64), a.astype(np.float64)
            right = (got == rounded) | np.isnan(got) & np.isnan(rounded) | (np.abs(got - b) <= 1.01 * step)
            # What cancels in float32, as the slope of a saturated sigmoid, is not the fault of 16 bits.
            right |= (got == c.astype(half)) | np.isnan(got) & np.isnan(c) | (np.abs(got - b) <= 2 * np.abs(c - b))
            assert right.all(), (got[~right][:3], b[~right][:3])


# --- digits in float32 ------------------------------------------------------------------------------------------------


def results(name: str, args: tuple, options: dict, dtype: type) -> list:
    """Result and gradients, in float64, of a sample computed in ``dtype``; the gradient of the result is positive."""
    made = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    made = tensors(tuple(made), dtype)
    y = run(name, made, options)
    if y.requires_grad and y.is_floating_point():
        y.backward(Tensor._wrap(np.random.default_rng(3).uniform(0.5, 1, y.shape).astype(dtype)))
    return [y.detach().array.astype(np.float64), *grads(made)]


def holds_sizes(args: tuple, options: dict) -> bool:
    return not all(isinstance(a, SHAPED) or type(a) is tuple for a in (*args, *options.values()))


UNEVEN = ("linalg", "ops.linear", "ops.einsum", "ops.rearrange._diag_embed")
"""n numbers make n² of them."""


@pytest.mark.parametrize("axis", [0, -1], ids=["first", "last"])
@case
def test_long_float32_keeps_its_digits(name, i, axis):
    """Numbers of one sign, so many that adding them one after the other would lose three digits."""
    args, options = sample(name, i)
    shapes = {np.shape(a) for a in args if isinstance(a, np.ndarray)}
    if len(shapes) != 1 or REGISTRY[name].kind or holds_sizes(args, options) or name.startswith(UNEVEN):
        pytest.skip("its arguments have shapes that depend on each other, or it adds nothing up")
    (shape,) = shapes
    if not all(is_float(a) for a in args if isinstance(a, np.ndarray)) or 0 in shape or not shape:
        pytest.skip("nothing to make longer")
    times = [60000 // int(np.prod(shape)) if d == axis % len(shape) else 1 for d in range(len(shape))]
    args = tuple(np.abs(np.tile(a, times)).astype(np.float32) if is_float(a) else a for a in args)
    with np.errstate(all="ignore"):
        try:
            wanted = results(name, args, options, np.float64)
        except (ValueError, RuntimeError, IndexError, np.linalg.LinAlgError):
            pytest.skip("the longer sample means nothing")
        for found, exact in zip(results(name, args, options, np.float32), wanted, strict=True):
            finite = np.isfinite(exact) & (np.abs(exact) < 1e37)
            near = 2e-5 * np.abs(exact[finite]).max(initial=0)
            np.testing.assert_allclose(found[finite], exact[finite], rtol=2e-5, atol=max(near, 1e-9))


@case
def test_what_a_shift_does_not_change_is_exact_about_a_large_mean(name, i):
    """Spreads, norms, softmax, differences: found by what they give in float64, and then expected of float32 too."""
    args, options = sample(name, i)
    if not (len(args) and is_float(args[0]) and np.asarray(args[0]).size):
        pytest.skip("no floats")
    first = np.round(np.asarray(args[0]) * 8) / 8
    here, there = ((np.asarray(first + shift), *args[1:]) for shift in (0, 2.0**20))  # exact in float32
    with np.errstate(all="ignore"):
        try:
            near, wanted = results(name, here, options, np.float64), results(name, there, options, np.float64)
        except (ValueError, RuntimeError, IndexError, np.linalg.LinAlgError):
            pytest.skip("the sample may not be shifted")
        if not np.allclose(near[0], wanted[0], rtol=1e-6, atol=1e-8) or not np.isfinite(near[0]).all():
            pytest.skip("a shift changes it")
        for a, b in zip(results(name, there, options, np.float32), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1, np.abs(b).max(initial=0)))


@case
def test_zeros_and_huge_numbers_together_give_no_nan(name, i):
    """Where float64 finds a gradient that float32 has numbers for, float32 finds one as well: 0 · ∞ is no answer."""
    args, options = sample(name, i)
    if not any(is_float(a) for a in args) or name.startswith(("ops.recurrent", "linalg.factors")):
        pytest.skip("no floats; steps of which each multiplies the state of the one before; equal singular values")
    for draw in range(4):
        rng = np.random.default_rng(draw)
        drawn = tuple(np.asarray(rng.choice([0.0, 0.0, 1.0, 1e13], np.shape(a))) if is_float(a) else a for a in args)
        with np.errstate(all="ignore"):
            try:
                wanted = results(name, drawn, options, np.float64)
            except (ValueError, RuntimeError, IndexError, np.linalg.LinAlgError):
                pytest.skip("it refuses such numbers")
            for found, exact in zip(results(name, drawn, options, np.float32), wanted, strict=True):
                fits = np.isfinite(exact) & (np.abs(exact) < 1e38)
                assert not np.isnan(found[fits]).any()
