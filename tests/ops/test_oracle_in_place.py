"""In-place changes against PyTorch, and what both libraries refuse."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_cases import F, cases, host, make

import kobai

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")

IN_PLACE = """
column: x[:, 0] *= w
row_add: x[1] += 2 * w.sum()
element: x[0, 0] = w.sum()
whole: x[...] = x * 2
number: x[1:] = 3.0
slice_from_tensor: x[:, 1] = w
broadcast: x[:, 1:] = w[:, None]
mask: x[x > 0] = 0.5
mask_value: x[x > 0] *= 2
mask_tensor: x[x > 0] = w[0]
list: x[[0, 2]] = w[:3]
tensors: x[T.tensor([0, 3]), T.tensor([1, 2])] = w[:2]
int_and_list: x[1, [0, 2]] = w[:2]
view_mul: y = x[0]; y.mul_(3)
view_of_view: y = x[1:]; z = y[0]; z += w[:3]
sibling: y = x[0]; z = x[0]; y *= 2; x = x + z
sibling_later: y = x[:, 0]; x *= 2; x = x * y[:, None]
sibling_both: y = x[:2]; z = x[1:]; y *= w[0]; z *= w[1]; x = x * 1
transposed: y = x.t(); y[0] *= w
transposed_whole: y = x.t(); y *= 3
reshaped: y = x.view(-1); y[::2] *= 2
reshaped_write: y = x.view(2, 6); y[1] = w.repeat(2)[:6]
diagonal: y = x.diagonal(); y *= 3
diagonal_fill: x.diagonal().fill_(0)
select_out: y = x.select(1, 2); y.copy_(w)
narrow_out: y = x.narrow(0, 1, 2); y.zero_()
squeezed: y = x.unsqueeze(0); y.mul_(2)
permuted: y = x[None].permute(2, 0, 1); y[1].mul_(w)
expanded_after: y = x[:1].expand(4, 3); x.mul_(2); x = x + y
expanded_row: y = x[1].expand(2, 3); x[1] = x[1] + w[0]; x = x + y.sum()
copy: x.copy_(w[:, None])
copy_cast: x.copy_(w.float()[:, None])
fill: x.fill_(w[0])
zero: x.zero_()
masked_fill: x.masked_fill_(x > 0, 2.0)
clamp_column: x[:, 1].clamp_(min=0)
index_add: x.index_add_(0, T.tensor([0, 0]), w[:3].expand(2, 3))
index_copy: x.index_copy_(0, T.tensor([2]), w[:3][None])
index_fill: x.index_fill_(1, T.tensor([0, 2]), 1.0)
scatter: x.scatter_(1, T.tensor([[0], [1], [2], [0]]), w[:, None])
scatter_add: x.scatter_add_(0, T.tensor([[0, 0, 0]]), w[:3][None])
tril: x.tril_()
loop: [x[i].mul_(w[i]) for i in range(4)]
loop_columns: [x.__setitem__((slice(None), i), x[:, i] * i + w) for i in range(3)]
no_grad_view: y = (T.no_grad()(lambda: x[0]))(); x = x + y
filled_rows: z = T.zeros(4, 3, dtype=x.dtype); [z.__setitem__(i, x[i] * w[i]) for i in range(4)]; x = z
leaf_view_after: y = x * 1; z = y[1]; y *= 2; x = y + z
detached: y = x.detach(); x = x * 1 + y
add_twice: x += x; x *= 2
unsqueeze: x.unsqueeze_(0); x = x * 2; x = x[0]
squeeze: y = x[None] * 1; y.squeeze_(0); x = y
transpose: y = x * 1; y.t_(); x = y.transpose_(0, 1)
unsqueeze_then_write: x.unsqueeze_(1); x[:, 0] *= w[:, None]; x = x[:, 0]
unsqueeze_view: y = x[1:]; y.unsqueeze_(0); y.mul_(2)
unsqueeze_view_sibling: y = x[1:]; z = x[1]; y.unsqueeze_(0); y.mul_(2); x = x * z
index_put: x.index_put_((T.tensor([0, 1]),), w[:3])
unsqueeze_sibling_before: z = x[1]; x.unsqueeze_(0); x.mul_(2); x = x[0] * z
unsqueeze_write_before: z = x[1]; x.unsqueeze_(0); z.mul_(2); x = x[0]
unsqueeze_no_use: z = x[1]; x.unsqueeze_(0); x = x[0] * z
fill_diagonal: x.fill_diagonal_(3)
scatter_reduce: x.scatter_reduce_(1, T.tensor([[0], [1], [2], [0]]), w[:, None], 'amax')
squeeze_sub: x.squeeze()[0] -= w[:3]
"""


def run_in_place(T, code: str) -> tuple:
    rng = np.random.default_rng(6)
    leaf, w = make(T, rng.normal(size=(4, 3))), make(T, rng.normal(size=4))
    space = {"T": T, "x": leaf * 2, "w": w, "leaf": leaf}
    exec(code, space)
    x = space["x"]
    (x * T.tensor(rng.normal(size=(4, 3)).tolist(), dtype=T.float64)).sum().backward()
    return host(x), *(None if leaf.grad is None else host(leaf.grad) for leaf in (leaf, w))


@pytest.mark.parametrize("code", cases(IN_PLACE))
def test_in_place_value_and_gradient(code):
    ours, theirs = run_in_place(kobai, code), run_in_place(torch, code)
    for mine, expected in zip(ours, theirs, strict=True):
        if expected is None or mine is None:
            assert all(g is None or not g.any() for g in (mine, expected))
        else:
            np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("code", [c for c in cases(IN_PLACE) if "float()" not in c.values[0]])
def test_in_place_without_the_tape(code):
    def outcome(T):
        rng = np.random.default_rng(6)
        with T.no_grad():
            x, w = make(T, rng.normal(size=(4, 3))), make(T, rng.normal(size=4))
            space = {"T": T, "x": x, "w": w}
            exec(code, space)
            return host(space["x"])

    np.testing.assert_allclose(outcome(kobai), outcome(torch), rtol=1e-12, atol=1e-12)


REFUSED = """
index_range: a[4]
index_many: a[0, 0, 0]
index_tensor_range: a[T.tensor([9])]
index_float: a[1.5]
index_float_tensor: a[T.tensor([0.0])]
index_mask_shape: a[:, T.tensor([True, False])]
slice_backwards: a[::-1]
view_strides: a.t().view(-1)
view_size: a.view(5)
reshape_size: a.reshape(5, -1)
expand: a.expand(2, 3)
permute: a.permute(0)
transpose_dim: a.transpose(0, 2)
cat_shapes: T.cat([a, c])
cat_nothing: T.cat([])
stack_shapes: T.stack([a, v])
split_sizes: v.split([1, 1])
max_empty: T.zeros(0).max()
max_empty_dim: e.max(0)
argmax_empty: T.zeros(0).argmax()
mean_int: T.tensor([1, 2]).mean()
sum_dim: a.sum(2)
sum_twice: a.sum((0, 0))
topk: v.topk(6)
gather_shape: a.gather(0, T.tensor([0, 1]))
gather_float: a.gather(0, T.tensor([[0.0]]))
scatter_dtype: a.detach().scatter(0, T.tensor([[0]]), T.ones(1, 1, dtype=T.float32))
index_select_range: a.index_select(0, T.tensor([-1]))
masked_fill_mask: a.masked_fill(b, 0.0)
where_mask: T.where(a, a, b)
not_float: ~a
and_float: a & 1
compare_shapes: a == v
leaf_in_place: a.__setitem__(0, 1.0)
leaf_view_in_place: a[0].mul_(2)
setitem_shape: a.clone().__setitem__(0, v)
expanded_in_place: (o * 1).expand(2, 4, 3).add_(1)
norm_int: T.tensor([1, 2]).norm()
bincount_negative: T.bincount(T.tensor([-1]))
diag_3d: T.diag(c)
t_3d: c.t()
repeat_few: a.repeat(2)
flatten_order: c.flatten(2, 1)
unsqueeze_far: a.unsqueeze(4)
tril_vector: v.tril()
kthvalue: v.kthvalue(9)
copy_shape: a.detach().copy_(v)
fill_vector: a.detach().fill_(v)
"""


@pytest.mark.parametrize("code", cases(REFUSED))
def test_both_refuse(code):
    for T in (torch, kobai):
        rng = np.random.default_rng(5)
        arrays = {name: make(T, rng.normal(size=shape)) for name, shape in F.items()}
        with pytest.raises((RuntimeError, IndexError, ValueError, TypeError, NotImplementedError)):
            eval(code, {"T": T, **arrays})
