"""Every reduction by its definition, a loop over slices: dim in all spellings, keepdim, dtype, NumPy's names, no elements."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import kobai

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(3, 4)),
    "cube": RNG.normal(size=(2, 3, 4)),
    "with ties": RNG.integers(0, 3, (3, 5)).astype(float),
    "with nan": np.where(RNG.uniform(size=(3, 4)) < 0.3, np.nan, RNG.normal(size=(3, 4))),
    "scalar": np.array(1.5),
    "empty slices": np.zeros((2, 0)),
    "no slices": np.zeros((0, 3)),
}


def middle(v: np.ndarray) -> float:
    return np.nan if np.isnan(v).any() or not v.size else np.sort(v)[(v.size - 1) // 2]


def known(v: np.ndarray) -> np.ndarray:
    return v[~np.isnan(v)]


def spread(v: np.ndarray) -> float:
    return ((v - v.mean()) ** 2).sum() / (v.size - 1) if v.size > 1 else np.nan


MANY = {  # over any number of dimensions; what one slice, as a vector, becomes
    "sum": lambda v: v.sum(),
    "mean": lambda v: v.mean() if v.size else np.nan,
    "var": spread,
    "std": lambda v: math.sqrt(spread(v)),
    "var_mean": lambda v: (spread(v), v.mean() if v.size else np.nan),
    "std_mean": lambda v: (math.sqrt(spread(v)), v.mean() if v.size else np.nan),
    "amax": lambda v: v.max(),
    "amin": lambda v: v.min(),
    "all": lambda v: bool(v.all()),
    "any": lambda v: bool(v.any()),
    "nansum": lambda v: known(v).sum(),
    "nanmean": lambda v: known(v).mean() if known(v).size else np.nan,
    "logsumexp": lambda v: np.log(np.exp(v).sum()),
    "norm": lambda v: np.sqrt((v * v).sum()),
    "linalg.vector_norm": lambda v: np.sqrt((v * v).sum()),
    "count_nonzero": lambda v: int((v != 0).sum()),
}
ONE = {  # over one dimension, or all
    "prod": lambda v: v.prod(),
    "max": lambda v: v.max(),
    "min": lambda v: v.min(),
    "median": middle,
    "nanmedian": lambda v: middle(known(v)) if known(v).size else np.nan,
    "argmax": lambda v: int(np.argmax(v)),
    "argmin": lambda v: int(np.argmin(v)),
    "aminmax": lambda v: (v.min(), v.max()),
    "mode": lambda v: min(set(v.tolist()), key=lambda n: (-(v == n).sum(), n)),
    "quantile": lambda v: np.quantile(v, 0.3),
}
NEEDS_ELEMENTS = {"amax", "amin", "max", "min", "argmax", "argmin", "aminmax", "mode", "quantile"}
NO_KEEPDIM = {"count_nonzero"}
DIMS = [None, 0, -1, 1, (0,), (0, -1), [-1, 0], ()]


def function(name: str):
    for part in (found := [kobai]) and name.split("."):
        found.append(getattr(found[-1], part))
    call = found[-1]
    return (lambda x, **options: call(x, 0.3, **options)) if name == "quantile" else call


def by_slices(f, x: np.ndarray, axes: tuple[int, ...], keepdim: bool) -> list[np.ndarray]:
    """f of every slice over ``axes``, in an array of what is left."""
    kept = [d for d in range(x.ndim) if d not in axes]
    shape = [x.shape[d] for d in kept]
    moved = x.transpose(*kept, *axes).reshape(*shape, math.prod(x.shape[d] for d in axes))
    found = [f(moved[place]) for place in itertools.product(*map(range, shape))]
    parts = list(zip(*found, strict=True)) if found and isinstance(found[0], tuple) else [found]
    final = [1 if d in axes else n for d, n in enumerate(x.shape)] if keepdim else shape
    return [np.array(part, dtype=None if part else float).reshape(final) for part in parts]


CASES = [
    (name, key, dim, keepdim)
    for name in (*MANY, *ONE)
    for key, x in ARRAYS.items()
    for dim in DIMS
    for keepdim in (False, True)
    if not (name in NO_KEEPDIM and keepdim)
    and not (name in ONE and isinstance(dim, (tuple, list)))
    and not (name == "logsumexp" and dim is None)
    and not (name == "mode" and dim is None)
    and all(-max(x.ndim, 1) <= d < max(x.ndim, 1) for d in np.atleast_1d(() if dim is None else dim))
    and not (dim in ((0, -1), [-1, 0]) and x.ndim < 2)
]


@pytest.mark.few(4)
@pytest.mark.filterwarnings("ignore:.*fewer elements than degrees of freedom")
@pytest.mark.parametrize(("name", "key", "dim", "keepdim"), CASES, ids=str)
def test_by_its_definition(name, key, dim, keepdim):
    x = ARRAYS[key]
    f = (MANY | ONE)[name]
    listed = () if dim is None else tuple(np.atleast_1d(dim).astype(int))
    if dim is None or (dim == () and name not in ("all", "any")):  # no dimension named means all
        listed = tuple(range(x.ndim))
    axes = tuple(dict.fromkeys(d % x.ndim for d in listed)) if x.ndim else ()
    options = {"keepdim": True} if keepdim else {}
    if dim is not None:
        options["dim"] = dim
    indices = name in ("max", "min", "median", "nanmedian", "mode") and dim is not None
    needs = name in NEEDS_ELEMENTS or (name in ("median", "nanmedian") and dim is not None)
    if needs and math.prod(x.shape[d] for d in axes) == 0:
        if name == "quantile" or x.size == 0:
            with pytest.raises((IndexError, RuntimeError), match="at least one element"):
                function(name)(kobai.tensor(x), **options)
        return
    if name in ("max", "min", "mode") and keepdim and dim is None:
        return  # PyTorch has no such form
    if name == "quantile" and not x.size:
        return
    with np.errstate(all="ignore"):
        if name in ("quantile", "mode") and np.isnan(x).any():
            f = {"quantile": lambda v: np.nan if np.isnan(v).any() else np.quantile(v, 0.3)}.get(name)
            if f is None:
                return
        wanted = by_slices(f, x, axes, keepdim)
        if not wanted[0].size and name in ("var_mean", "std_mean", "aminmax"):
            wanted = wanted * 2
    found = function(name)(kobai.tensor(x), **options)
    if indices:
        values, index = found
        picked = (
            np.take_along_axis(x, index.numpy() if keepdim else np.expand_dims(index.numpy(), dim), dim)
            if x.ndim
            else x
        )
        np.testing.assert_array_equal(picked if keepdim or not x.ndim else np.squeeze(picked, dim), values.numpy())
        assert index.dtype == kobai.int64
        found = values
    parts = found if isinstance(found, tuple) else (found,)
    assert len(parts) == len(wanted)
    for ours, theirs in zip(parts, wanted, strict=True):
        assert tuple(ours.shape) == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in (*MANY, *ONE) if not n.startswith("linalg")])
def test_names_of_numpy(name):
    x = kobai.tensor(ARRAYS["matrix"])
    theirs, ours = {"axis": 1, "keepdims": True}, {"dim": 1, "keepdim": True}
    if name in NO_KEEPDIM:
        theirs.pop("keepdims")
        ours.pop("keepdim")
    for a, b in zip(np.atleast_1d(function(name)(x, **theirs)), np.atleast_1d(function(name)(x, **ours)), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


# --- running ----------------------------------------------------------------------------------------------------------

RUNNING = {
    "cumsum": np.cumsum,
    "cumprod": np.cumprod,
    "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.parametrize("key", ["matrix", "cube", "with ties", "with nan", "empty slices", "no slices"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_running_by_its_definition(name, key, dim):
    x = ARRAYS[key]
    found = getattr(kobai, name)(kobai.tensor(x), dim)
    values = found if isinstance(found, kobai.Tensor) else found.values
    np.testing.assert_allclose(values.numpy(), RUNNING[name](x, axis=dim), rtol=1e-12)
    if values is not found and x.size:
        np.testing.assert_array_equal(np.take_along_axis(x, found.indices.numpy(), dim), values.numpy())


# --- dtype ------------------------------------------------------------------------------------------------------------

WIDTHS = "int8 uint8 int16 int32 int64 bfloat16 float16 float32 float64 bool".split()
OVER = {
    "sum": lambda x, t: x.astype(t).sum(0, dtype=t),
    "nansum": lambda x, t: x.astype(t).sum(0, dtype=t),
    "prod": lambda x, t: x.astype(t).prod(0, dtype=t),
    "cumsum": lambda x, t: x.astype(t).cumsum(0, dtype=t),
    "cumprod": lambda x, t: x.astype(t).cumprod(0, dtype=t),
    "mean": lambda x, t: x.astype(t).mean(0, dtype=np.float64).astype(t),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("to", WIDTHS)
@pytest.mark.parametrize("given", WIDTHS)
@pytest.mark.parametrize("name", OVER)
def test_dtype_is_that_of_the_sum_and_of_its_overflow(name, given, to):
    x = np.array([[100, 3, 0], [100, 5, 1], [2, 7, 9]]).astype(given)
    if name == "mean" and not getattr(kobai, to).is_floating_point:
        with pytest.raises(RuntimeError, match="expected floats"):
            kobai.mean(kobai.from_numpy(x), 0, dtype=getattr(kobai, to))
        return
    found = getattr(kobai, name)(kobai.from_numpy(x), dim=0, dtype=getattr(kobai, to))
    assert found.dtype == to
    np.testing.assert_allclose(found.numpy(), OVER[name](x, np.dtype(to)), rtol=1e-3)


@pytest.mark.parametrize("given", WIDTHS)
def test_dtype_without_being_asked(given):
    x = kobai.from_numpy(np.array([1, 0, 2]).astype(given))
    wide = given if "float" in given else "int64"
    for name in ("sum", "prod", "nansum"):
        assert getattr(kobai, name)(x).dtype == wide, name
    for name in ("cumsum", "cumprod"):
        assert getattr(kobai, name)(x, 0).dtype == wide, name
    for name in ("amax", "amin", "max", "min", "median", "nanmedian"):
        assert getattr(kobai, name)(x).dtype == given, name
    for name in ("argmax", "argmin", "count_nonzero"):
        assert getattr(kobai, name)(x).dtype == "int64", name
    for name in ("all", "any"):  # uint8 was PyTorch's truth value once
        assert getattr(kobai, name)(x).dtype == ("uint8" if given == "uint8" else "bool"), name
