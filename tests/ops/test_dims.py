"""Every argument that names dimensions: out of range, named twice, not an integer. One table; a new function must be in it."""

from __future__ import annotations

import inspect

import pytest

import kobai

# function: call of it, with ``d`` for the dimension, on x (2, 3, 4), integers i of x's shape, index n of one dimension
_one = """
aminmax: T.aminmax(x, dim=d)
argmax: T.argmax(x, d)
argmin: T.argmin(x, d)
argsort: T.argsort(x, d)
cat: T.cat([x, x], d)
chunk: T.chunk(x, 2, d)
cosine_similarity: T.cosine_similarity(x, x, d)
count_nonzero: T.count_nonzero(x, d)
linalg.cross: T.linalg.cross(x[:, :, :3], x[:, :, :3], dim=d)
cummax: T.cummax(x, d)
cummin: T.cummin(x, d)
cumprod: T.cumprod(x, d)
cumsum: T.cumsum(x, d)
cumulative_trapezoid: T.cumulative_trapezoid(x, dim=d)
diff: T.diff(x, 1, d)
flatten: T.flatten(x, d, d)
gather: T.gather(x, d, i)
glu: F.glu(x, d)
index_add: T.index_add(x, d, n, x)
index_copy: T.index_copy(x, d, n, x)
index_fill: T.index_fill(x, d, n, 1.0)
index_reduce: T.index_reduce(x, d, n, x, 'prod')
index_select: T.index_select(x, d, n)
logcumsumexp: T.logcumsumexp(x, d)
nanquantile: T.nanquantile(x, 0.5, d)
kthvalue: T.kthvalue(x, 1, d)
log_softmax: T.log_softmax(x, d)
max: T.max(x, d)
median: T.median(x, d)
min: T.min(x, d)
mode: T.mode(x, d)
nanmedian: T.nanmedian(x, d)
narrow: T.narrow(x, d, 0, 1)
normalize: F.normalize(x, 2.0, d)
prod: T.prod(x, d)
quantile: T.quantile(x, 0.5, d)
renorm: T.renorm(x, 2, d, 1.0)
repeat_interleave: T.repeat_interleave(x, 2, d)
scatter: T.scatter(x, d, i, x)
scatter_add: T.scatter_add(x, d, i, x)
scatter_reduce: T.scatter_reduce(x, d, i, x, 'sum')
select: T.select(x, d, 0)
slice_scatter: T.slice_scatter(x, x, d)
size: x.size(d)
stride: x.stride(d)
softmax: T.softmax(x, d)
softmin: F.softmin(x, d)
gumbel_softmax: F.gumbel_softmax(x, dim=d)
sort: T.sort(x, d)
split: T.split(x, 1, d)
split_with_sizes: T.split_with_sizes(x, [1, 1], d)
stack: T.stack([x, x], d)
take_along_dim: T.take_along_dim(x, i, d)
tensor_split: T.tensor_split(x, 2, d)
topk: T.topk(x, 1, d)
trapezoid: T.trapezoid(x, dim=d)
unbind: T.unbind(x, d)
unflatten: T.unflatten(x, d, (-1,))
unfold: x.unfold(d, 1, 1)
unique: T.unique(x, dim=d)
unique_consecutive: T.unique_consecutive(x, dim=d)
unsqueeze: T.unsqueeze(x, d)
linalg.vecdot: T.linalg.vecdot(x, x, dim=d)
"""
_many = """
all: T.all(x, d)
amax: T.amax(x, d)
amin: T.amin(x, d)
any: T.any(x, d)
flip: T.flip(x, d if type(d) is tuple else (d,))
logsumexp: T.logsumexp(x, d)
mean: T.mean(x, d)
nanmean: T.nanmean(x, d)
nansum: T.nansum(x, d)
norm: T.norm(x, 2, d)
squeeze: T.squeeze(x, d)
std: T.std(x, d)
std_mean: T.std_mean(x, d)
gradient: T.gradient(x, dim=d)
sum: T.sum(x, d)
linalg.vector_norm: T.linalg.vector_norm(x, 2, d)
var: T.var(x, d)
var_mean: T.var_mean(x, d)
"""
_two = """
diag_embed: T.diag_embed(x, 0, *d)
diagonal: T.diagonal(x, 0, *d)
linalg.diagonal: T.linalg.diagonal(x, dim1=d[0], dim2=d[1])
linalg.norm: T.linalg.norm(x, 2, d)
movedim: T.movedim(x, d, (0, 1))
permute: T.permute(x, (*d, 2))
rot90: T.rot90(x, 1, d)
tensordot: T.tensordot(x, x, (d, d))
transpose: T.transpose(x, *d)
roll: T.roll(x, (1, 1), d)
"""
OF_THE_RESULT = {"diag_embed", "stack", "unsqueeze"}  # which has four
TAKES_THE_SAME_TWICE = {"transpose", "roll"}
NOT_DIMENSIONS = {"tile", "masked_scatter", "put", "put_"}  # "dims" are counts, "source" is a tensor


def rows(text):
    return dict(line.split(": ", 1) for line in text.strip().splitlines())


ONE, MANY, TWO = rows(_one), rows(_many), rows(_two)
ALIASES = {
    "diagonal_scatter",
    "select_scatter",
    "linalg.tensorsolve",
    "concat",
    "concatenate",
    "trapz",
    "swapaxes",
    "swapdims",
    "moveaxis",
    "linalg.matrix_norm",
}
NAMES = {"dim", "dims", "dim0", "dim1", "axis", "dimension", "source", "start_dim"}


def run(lib, call, d, shape=(2, 3, 4)):
    x = lib.ones(shape)
    i, n = lib.zeros(shape, dtype=lib.int64), lib.tensor([0])
    return eval(call, {"T": lib, "F": lib.nn.functional, "x": x, "i": i, "n": n, "d": d})


def outcome(lib, call, d, shape=(2, 3, 4)):
    """Name of the kind of error, or "" for a result."""
    try:
        run(lib, call, d, shape)
    except Exception as error:
        kinds = (IndexError, TypeError, ValueError, RuntimeError)
        return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)
    return ""


def test_every_function_that_names_dimensions_is_in_the_table():
    found, seen = set(), set()
    spaces = {"": kobai, "linalg.": kobai.linalg, "nn.functional.": kobai.nn.functional, "Tensor.": kobai.Tensor}
    for prefix, space in spaces.items():
        for name in dir(space):
            function = getattr(space, name)
            if name.startswith("_") or not callable(function) or inspect.isclass(function):
                continue
            if not set(inspect.signature(function).parameters) & NAMES or id(inspect.unwrap(function)) in seen:
                continue
            seen.add(id(inspect.unwrap(function)))
            found.add(prefix + name)
    here = {*ONE, *MANY, *TWO, *NOT_DIMENSIONS, *ALIASES}
    missing = {n for n in found if not {n.removeprefix("Tensor.").removesuffix("_"), n.split(".")[-1], n} & here}
    assert not {n for n in missing if f"linalg.{n}" not in here}, missing


ALL = {**ONE, **MANY, **TWO}


@pytest.mark.parametrize("name", ALL)
def test_out_of_range(name):
    rank = 4 if name in OF_THE_RESULT else 3
    for far in (rank, -rank - 1, 10**6):
        d = (0, far) if name in TWO else far
        with pytest.raises(IndexError, match=rf"^\w+: expected dim in \[-{rank}, {rank - 1}\], got {far}$"):
            run(kobai, ALL[name], d)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wrong", ["x", 1.5])
def test_not_an_integer(name, wrong):
    with pytest.raises(TypeError, match=r"^\w+: expected .*, got "):
        run(kobai, ALL[name], (0, wrong) if name in TWO else wrong)


@pytest.mark.parametrize("name", [*MANY, *TWO])
def test_named_twice(name):
    if name in TAKES_THE_SAME_TWICE:
        assert run(kobai, ALL[name], (1, 1)).shape == (2, 3, 4)
        return
    for twice in ((1, 1), (0, -4 if name in OF_THE_RESULT else -3)):
        with pytest.raises(RuntimeError, match=r"^\w+: .*(twice|once|two different)"):
            run(kobai, ALL[name], twice)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:index_reduce")  # PyTorch's: it may change
@pytest.mark.parametrize("name", ALL)
def test_refused_as_in_pytorch(name):
    torch = pytest.importorskip("torch")
    asked = [4, -5, "x", 1.5]
    if name in MANY:
        asked += [(0, 3), (1, 1), (0, -3), (0, 1.5)]
    if name in TWO:
        asked = [(0, 4), (0, -5), (1, 1), (0, -3), (0, "x"), (1.5, 0)]
    different = []
    for d in asked:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **options: None)
            ours, theirs = outcome(kobai, ALL[name], d), outcome(torch, ALL[name], d)
        if ours != theirs:
            different.append(f"{d!r}: PyTorch {theirs or 'a result'}, Kobai {ours or 'a result'}")
    if name not in TWO:  # the missing dimension of a scalar
        ours, theirs = (outcome(lib, ALL[name], 0, ()) for lib in (kobai, torch))
        if theirs and ours != theirs:
            different.append(f"0 of a scalar: PyTorch {theirs or 'a result'}, Kobai {ours or 'a result'}")
    assert not different, "; ".join(different)
