"""Shapes, indexing, reductions, order and comparison against PyTorch: results, dtypes, gradients, on the same numbers.

Every case is one function of a library (``torch`` or ``kobai``) and tensors, run with both.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle_cases import F, cases, dtype_name, flat, host, make

import kobai

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")

SHAPES = """
reshape: a.reshape(2, -1)
reshape_function: T.reshape(a, (6, 2))
reshape_of_transposed: a.t().reshape(-1)
view: a.view(3, 4)
view_tuple: c.view((6, 4))
flatten: c.flatten(1)
flatten_some: T.flatten(c, 0, 1)
flatten_scalar: s.flatten()
unflatten: c.unflatten(2, (2, -1))
ravel: T.ravel(c)
transpose: c.transpose(0, -1)
swapaxes: c.swapaxes(0, 1)
permute: c.permute(2, 0, 1)
permute_function: T.permute(c, (1, 0, 2))
t: a.t()
T: a.T
mT: c.mT
H: a.H
movedim: c.movedim(0, -1)
movedims: T.movedim(c, (0, 1), (2, 0))
squeeze: o.squeeze()
squeeze_dim: o.squeeze(1)
squeeze_nothing: o.squeeze(0)
squeeze_dims: o.squeeze((1, 2))
unsqueeze: a.unsqueeze(1)
unsqueeze_last: a.unsqueeze(-1)
expand: o.expand(2, 5, 3)
expand_keep: o.expand(3, -1, 4, -1)
expand_as: o.expand_as(T.zeros(2, 4, 3))
broadcast_to: T.broadcast_to(v, (2, 5))
broadcast_tensors: T.broadcast_tensors(o, a)[0]
repeat: a.repeat(2, 3)
repeat_more: v.repeat(2, 1, 2)
tile: a.tile((2,))
repeat_interleave: a.repeat_interleave(2, dim=0)
repeat_interleave_flat: a.repeat_interleave(3)
repeat_interleave_counts: T.repeat_interleave(a, T.tensor([1, 0, 2, 3]), 0)
cat: T.cat([a, b], dim=1)
cat_axis: T.cat((a, b), axis=0)
cat_dtypes: T.cat([a.float(), b])
cat_empty: T.cat([T.zeros(0, dtype=a.dtype), a])
stack: T.stack([a, b], -1)
hstack: T.hstack((a, b))
vstack: T.vstack((v, v))
dstack: T.dstack((a, b))
column_stack: T.column_stack((v, v))
row_stack: T.row_stack((v, v))
block_diag: T.block_diag(a, v, s)
hsplit: a.hsplit([1])[1]
vsplit: T.vsplit(a, 2)[1]
dsplit: c.dsplit(2)[0]
split: T.split(c, 2, dim=-1)[1]
split_uneven: v.split(2)[2]
split_list: v.split([1, 4])[1]
chunk: v.chunk(2)[1]
tensor_split: v.tensor_split(3)[1]
tensor_split_at: T.tensor_split(v, (1, 3))[1]
unbind: c.unbind(1)[2]
flip: c.flip(0, 2)
flip_function: T.flip(c, [1])
fliplr: a.fliplr()
roll: a.roll(2, 0)
roll_flat: T.roll(a, 5)
roll_two: a.roll((1, -1), (0, 1))
rot90: a.rot90()
rot90_back: T.rot90(a, -1, (0, 1))
tril: a.tril()
triu: c.triu(1)
diag: T.diag(v)
diag_above: v.diag(2)
diag_of: a.diag(-1)
diagonal: c.diagonal(1, -2, -1)
diagonal_outer: c.diagonal(0, 0, 2)
diag_embed: T.diag_embed(a, 1)
meshgrid: T.meshgrid(v, v[:2], indexing='ij')[0]
meshgrid_xy: T.meshgrid(v, v[:2], indexing='xy')[1]
cartesian_prod: T.cartesian_prod(v, v[:2])
clone: a.clone()
contiguous: a.t().contiguous()
narrow: c.narrow(1, 1, 2)
select: c.select(-1, 2)
unfold: v.unfold(0, 3, 1)
unfold_steps: c.unfold(2, 2, 2)
atleast_2d: T.atleast_2d(v)
atleast_3d: T.atleast_3d(a)
view_as: a.view_as(b.t())
empty: e.reshape(3, 0)
"""

INDEXING = """
int: a[1]
negative: a[-1]
int_of_vector: v[2]
two_ints: a[1, -1]
slices: c[:, 1:, ::2]
ellipsis: c[..., 0]
none: a[:, None, 1]
none_last: v[:, None]
tensor: a[T.tensor([2, 0, 2])]
list: a[[3, -1]]
array: a[np.array([1, 1])]
range: a[range(2)]
tensor_dim_1: c[:, T.tensor([2, 0])]
matrix_index: a[T.tensor([[0, 1], [3, 3]])]
two_tensors: a[T.tensor([0, 3, 3]), T.tensor([1, 2, 2])]
arange_target: a[T.arange(4), T.tensor([0, 2, 1, 1])]
separated: c[T.tensor([0, 1]), :, T.tensor([3, 3])]
int_and_list: c[0, :, [0, 1]]
list_then_int: c[[0, 1], :, 2]
list_none_list: c[[0, 1], None, [2, 2]]
broadcast_indices: c[T.tensor([[0], [1]]), T.tensor([2, 0])]
mask: a[a > 0]
mask_rows: a[T.tensor([True, False, True, True])]
mask_columns: a[:, T.tensor([True, False, True])]
mask_and_list: c[T.tensor([True, False]), :, [1]]
mask_two_dims: c[T.tensor([[True, False, True], [False, False, True]])]
mask_list: a[[True, False, False, True]]
true: a[True]
zero_dim_index: a[T.tensor(2)]
zero_dim_mixed: c[T.tensor(1), :, T.tensor([0, 2])]
bool_none: c[None, [0], ..., 1]
int32_index: a[T.tensor([0, 1], dtype=T.int32)]
empty_list: a[[]]
empty_slice: a[4:]
index_select: T.index_select(c, 1, T.tensor([0, 0, 2]))
gather: a.gather(1, T.tensor([[0], [2], [1], [1]]))
gather_more: T.gather(a, 0, T.tensor([[0, 3, 1], [2, 2, 2]]))
gather_repeats: a.gather(1, T.tensor([[0, 0, 2, 0]]))
take: T.take(a, T.tensor([[0, 11], [5, 5]]))
take_along_dim: T.take_along_dim(a, T.tensor([[0], [1], [2], [0]]), dim=1)
take_along_dim_broadcast: T.take_along_dim(a, T.tensor([[2, 1]]), 1)
take_along_all: T.take_along_dim(a, T.tensor([3, 3]))
where: T.where(a > 0, a, b)
where_number: T.where(a > 0, a, 0.0)
where_broadcast: T.where(v[:3] > 0, a, s)
where_method: a.where(b > 0, b)
masked_fill: a.masked_fill(b > 0, -1e9)
masked_fill_tensor: a.masked_fill(b > 0, s)
masked_select: a.masked_select(b > 0)
masked_select_broadcast: T.masked_select(a, T.tensor([True, False, True]))
masked_scatter: a.masked_scatter(b > 0, c)
scatter: T.zeros(4, 5, dtype=a.dtype).scatter(1, T.tensor([[0, 2, 4], [1, 3, 0]]), a[:2])
scatter_number: a.scatter(1, T.tensor([[0], [1], [2], [0]]), 7.0)
scatter_add: a.scatter_add(0, T.tensor([[0, 0, 0], [0, 1, 2]]), b[:2])
index_add: a.index_add(0, T.tensor([1, 1]), b[:2], alpha=2)
index_copy: a.index_copy(1, T.tensor([2, 0]), b[:, :2])
index_fill: a.index_fill(0, T.tensor([0, 2]), 3.0)
index_put: a.index_put((T.tensor([0, 2]), T.tensor([1, 1])), b[0, :2])
index_put_add: a.index_put((T.tensor([0, 0]),), b[:2], accumulate=True)
scatter_reduce_sum: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'sum')
scatter_reduce_mean: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'mean')
scatter_reduce_others: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'mean', include_self=False)
scatter_reduce_amax: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'amax')
scatter_reduce_amin: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'amin', include_self=False)
scatter_reduce_sum_others: v.scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0], 'sum', include_self=False)
scatter_reduce_ties: (v * 0).scatter_reduce(0, T.tensor([0, 0, 2]), a[:3, 0] * 0, 'amax')
scatter_reduce_int: T.tensor([1, 2]).scatter_reduce(0, T.tensor([0, 0]), T.tensor([3, 4]), 'mean')
embedding: T.embedding(a, T.tensor([[0, 3], [3, 1]]))
loop: sum(row.sum() * i for i, row in enumerate(a))
"""

REDUCTIONS = """
sum: a.sum()
sum_dim: c.sum(1)
sum_dims: c.sum((0, -1), keepdim=True)
sum_axis: c.sum(axis=2, keepdims=True)
sum_list: T.sum(c, [0, 1])
sum_dtype: a.sum(dtype=T.float32)
sum_no_dims: a.sum(dim=())
sum_empty: e.sum()
sum_empty_dim: e.sum(0)
mean: a.mean()
mean_dims: c.mean(dim=[1, 2])
mean_keep: c.mean(-1, True)
var: a.var()
var_dim: c.var(1, unbiased=False)
var_positional: c.var(1, True, True)
var_false: a.var(False)
var_correction: T.var(c, dim=(0, 2), correction=2)
std: a.std()
std_dim: c.std(dim=2, keepdim=True)
std_constant: (a * 0 + 3).std(0)
var_mean: T.var_mean(a, dim=0)[0]
std_mean: T.std_mean(a, 1, keepdim=True)[1]
prod: a.prod()
prod_dim: c.prod(1)
prod_zero: (a * T.tensor([0.0, 1.0, 1.0], dtype=a.dtype)).prod(1)
cumsum: c.cumsum(1)
cumprod: a.cumprod(dim=-1)
cumprod_zero: (a * T.tensor([1.0, 0.0, 1.0], dtype=a.dtype)).cumprod(1)
logsumexp: a.logsumexp(1)
logsumexp_dims: T.logsumexp(c, dim=(0, 2), keepdim=True)
logsumexp_large: (a * 1000).logsumexp(0)
norm: a.norm()
norm_1: a.norm(1, dim=1)
norm_p: c.norm(p=3, dim=-1, keepdim=True)
norm_inf: a.norm(float('inf'), 0)
norm_0: a.norm(0)
norm_fro: T.norm(a, p='fro', dim=(0, 1))
norm_zero: (a * 0).norm()
dist: T.dist(a, b)
max: a.max()
max_dim: a.max(1)
max_named: c.max(dim=1, keepdim=True).values
max_two: T.max(a, b)
min: a.min()
min_dim: T.min(c, -1)
amax: c.amax((0, 2))
amin: c.amin(1, keepdim=True)
amax_ties: (a * 0).amax(1)
aminmax: T.aminmax(a, dim=0).max
median: v.median()
median_even: a.flatten().median()
median_dim: c.median(2)
nansum: T.nansum(T.where(a > 0, a, float('nan')), 1)
nanmean: T.nanmean(T.where(a > 0, a, float('nan')))
argmax: a.argmax()
argmax_dim: c.argmax(dim=1, keepdim=True)
argmin: c.argmin(-1)
all: (a > 0).all()
all_dim: (a > -1).all(dim=1)
any: (a > 1).any(0, keepdim=True)
all_dims: (c > -1).all(dim=(0, 1))
count_nonzero: T.count_nonzero(a > 0, dim=1)
sum_bool: (a > 0).sum()
sum_int: T.arange(6).reshape(2, 3).sum(0)
sum_int32: T.arange(6, dtype=T.int32).sum()
prod_int: T.tensor([2, 3]).prod()
cumsum_bool: (a > 0).cumsum(0)
max_int: T.tensor([[1, 5], [7, 2]]).max(1)
"""

ORDER = """
sort: a.sort(1)
sort_down: T.sort(c, dim=1, descending=True)
sort_ties: T.tensor([1.0, 1.0, 0.0, 1.0]).sort(descending=True, stable=True)
sort_nan: T.tensor([1.0, float('nan'), 0.0]).sort()
sort_nan_down: T.tensor([1.0, float('nan'), 0.0]).sort(descending=True)
argsort: c.argsort(dim=0)
argsort_down: a.argsort(1, True)
msort: T.msort(a)
topk: c.topk(2)
topk_dim: a.topk(3, dim=0)
topk_smallest: a.topk(2, 1, largest=False)
topk_all: a.topk(3, -1)
topk_none: a.topk(0)
kthvalue: a.kthvalue(2, dim=0)
mode: T.tensor([[1, 2, 2, 3], [3, 1, 3, 1]]).mode(1).values
mode_float: T.mode(T.tensor([1.0, 2.0, 2.0])).values
mode_keep: T.tensor([[1, 2, 2], [1, 1, 2]]).mode(0, keepdim=True).values
cummax: c.cummax(1)
cummin: T.cummin(c, dim=-1)
cummax_ties: T.tensor([1, 3, 2, 3]).cummax(0)
cummax_nan: T.tensor([1.0, float('nan'), 2.0]).cummax(0)
isin: T.isin(T.tensor([1, 2, 3]), T.tensor([3, 1]))
isin_invert: T.isin(T.tensor([1, 2, 3]), T.tensor([3, 1]), invert=True)
tril_indices: T.tril_indices(3, 4, 1)
triu_indices: T.triu_indices(3, 3)
unique: T.unique(T.tensor([3, 1, 3, 2]))
unique_all: T.unique(T.tensor([[3, 1], [3, 2]]), return_inverse=True, return_counts=True)
unique_dim: T.unique(T.tensor([[3, 1], [3, 1], [0, 2]]), dim=0)
unique_consecutive: T.unique_consecutive(T.tensor([1, 1, 2, 1]), return_inverse=True, return_counts=True)
bincount: T.bincount(T.tensor([0, 2, 2]), minlength=5)
bincount_weights: T.bincount(T.tensor([0, 2, 2]), T.tensor([0.5, 1.0, 2.0]))
bincount_empty: T.bincount(T.tensor([], dtype=T.int64), minlength=2)
histc: T.histc(T.tensor([1.0, 2.0, 1.0, 5.0]), bins=4, min=0, max=3)
histc_auto: T.histc(T.tensor([1.0, 2.0, 1.0]), bins=4)
searchsorted: T.searchsorted(T.tensor([1, 3, 5, 7]), T.tensor([[3, 6, 9], [0, 1, 5]]))
searchsorted_right: T.searchsorted(T.tensor([[1, 3, 5], [2, 4, 6]]), T.tensor([[3, 6], [4, 7]]), right=True)
bucketize: T.bucketize(T.tensor([0.5, 2.0, 9.0]), T.tensor([1.0, 2.0, 3.0]))
nonzero: (a > 0).nonzero()
nonzero_tuple: T.nonzero(a > 0, as_tuple=True)
argwhere: T.argwhere(a > 0)
where_alone: T.where(a > 0)
"""

COMPARISON = """
eq: a == b
ne: a != 0
lt: a < b
le: T.le(a, b)
gt: 0.5 > a
ge: a.ge(o)
eq_int_float: T.tensor([1, 2]) == T.tensor([1.0, 2.5])
lt_int_number: T.tensor([1, 2]) < 1.5
eq_bool: (a > 0) == (b > 0)
logical_and: T.logical_and(a > 0, b > 0)
logical_or: (a > 0).logical_or(b)
logical_xor: T.logical_xor(T.tensor([1, 0]), T.tensor([2.0, 0.0]))
logical_not: T.logical_not(T.tensor([0, 3]))
and: (a > 0) & (b > 0)
or: (a > 0) | (b > 0)
xor: (a > 0) ^ True
not: ~(a > 0)
bits: T.tensor([6, 3]) & 5
bits_or: 8 | T.tensor([6, 3])
bits_not: ~T.tensor([6, 3])
shift: T.tensor([6, 3]) << 2
shift_right: T.tensor([6, -3]) >> T.tensor([1, 1])
isnan: T.isnan(T.tensor([1.0, float('nan')]))
isinf: T.tensor([1.0, -float('inf')]).isinf()
isfinite: T.isfinite(T.tensor([1.0, -float('inf'), float('nan')]))
isclose: T.isclose(a, a + 1e-9)
sign: a.sign()
sign_int: T.tensor([-2, 0]).sign()
floor: (a * 3).floor()
ceil: (a * 3).ceil()
round: (a * 3).round()
round_half: T.round(T.tensor([0.5, 1.5, 2.5, -0.5]))
round_decimals: a.round(decimals=2)
round_tens: (a * 100).round(decimals=-1)
trunc: (a * 3).trunc()
frac: (a * 3).frac()
floor_int: T.tensor([1, 2]).floor()
"""


def run(T, code: str) -> tuple[list, list]:
    rng = np.random.default_rng(5)
    arrays = {name: make(T, rng.normal(size=shape)) for name, shape in F.items()}
    outputs = flat(eval(code, {"T": T, "np": np, "float": float, "math": math, **arrays}))
    loss = None
    for i, y in enumerate(outputs):
        if y.requires_grad:
            w = np.random.default_rng(i).normal(size=tuple(y.shape))
            term = (y * T.tensor(w.tolist(), dtype=y.dtype).reshape(tuple(y.shape))).sum().double()
            loss = term if loss is None else loss + term
    if loss is not None:
        loss.backward()
    return outputs, [None if x.grad is None else host(x.grad) for x in arrays.values()]


@pytest.mark.parametrize(
    "code", cases(SHAPES + INDEXING.lstrip() + REDUCTIONS.lstrip() + ORDER.lstrip() + COMPARISON.lstrip())
)
def test_result_dtype_and_gradient(code):
    ours, grads = run(kobai, code)
    theirs, expected = run(torch, code)
    assert len(ours) == len(theirs)
    for y, t in zip(ours, theirs, strict=True):
        assert tuple(y.shape) == tuple(t.shape)
        assert dtype_name(y) == dtype_name(t)
        assert y.requires_grad == t.requires_grad
        np.testing.assert_allclose(host(y), host(t), rtol=1e-6 if "float32" in dtype_name(y) else 1e-12, atol=1e-12)
    for mine, g in zip(grads, expected, strict=True):
        if g is None:
            assert mine is None or not mine.any()
        else:
            np.testing.assert_allclose(
                mine, g, rtol=1e-6 if ".float" in code or "float32" in code else 1e-12, atol=1e-12
            )
