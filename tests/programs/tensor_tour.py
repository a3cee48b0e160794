"""A tour of tensors: making, indexing, reshaping, reducing, comparing, joining, sorting, converting; results collected."""

import math

import numpy as np
import torch

RESULT = {}


def note(name, tensor):
    """A fingerprint of values and order."""
    values = torch.as_tensor(tensor).detach().to(torch.float64).flatten()
    weights = torch.arange(1, values.numel() + 1, dtype=torch.float64)
    RESULT["exact_" + name] = (values * weights).sum().item()
    RESULT["exact_" + name + "_shape"] = "x".join(str(n) for n in torch.as_tensor(tensor).shape)


def making():
    note("arange", torch.arange(1, 10, 2))
    note("arange_float", torch.arange(0, 1, 0.25))
    note("linspace", torch.linspace(0, 1, steps=5))
    note("logspace", torch.logspace(0, 2, 3))
    note("full", torch.full((2, 3), 7.0))
    note("eye", torch.eye(3, 4))
    note("diag", torch.diag(torch.tensor([1.0, 2.0])))
    note("like", torch.zeros_like(torch.ones(2)) + torch.ones_like(torch.zeros(2)) + torch.full_like(torch.ones(2), 3))
    x = torch.tensor([[1, 2], [3, 4]])
    note("new", x.new_tensor([5, 6]) + x.new_ones(2) + x.new_full((2,), 3))
    note("meshgrid", torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")))
    note("cartesian", torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([4, 5])))
    a = torch.empty(3, 2)
    assert a.shape == (3, 2)
    assert a.size() == torch.Size([3, 2])
    assert a.size(0) == 3
    assert a.dim() == a.ndim == 2
    assert a.numel() == 6
    assert len(a) == 3
    assert torch.rand(2, 3).max() < 1
    assert torch.randn(4).shape == (4,)
    assert torch.randint(5, (10,)).max() < 5
    assert sorted(torch.randperm(5).tolist()) == [0, 1, 2, 3, 4]
    assert torch.rand_like(a).shape == a.shape
    assert torch.bernoulli(torch.ones(3)).sum() == 3
    assert torch.normal(0.0, 1.0, size=(2, 2)).shape == (2, 2)
    assert torch.is_tensor(a)
    assert torch.tensor(3).item() == 3
    assert torch.tensor([1.5]).dtype == torch.float32
    assert torch.tensor([1]).dtype == torch.int64
    assert torch.tensor([True]).dtype == torch.bool


def indexing():
    x = torch.arange(24).reshape(2, 3, 4)
    note("basic", x[0, 1:, ::2])
    note("ellipsis", x[..., -1])
    note("none", x[:, None, 0])
    note("lists", x[[0, 1], [2, 0]])
    note("tensor", x[:, torch.tensor([2, 0, 0])])
    note("mask", x[x % 5 == 0])
    note("mixed", x[1, :, torch.tensor([0, 3])])
    note("gather", torch.gather(x[0], 1, torch.tensor([[0], [3], [1]])))
    note("take_along", torch.take_along_dim(x[1], x[1].argsort(dim=1, descending=True), dim=1))
    note("index_select", torch.index_select(x, 2, torch.tensor([3, 1])))
    note("masked_select", torch.masked_select(x, x > 20))
    note("nonzero", torch.nonzero(x[0] > 8))
    rows, cols = torch.where(x[0] > 9)
    note("where_index", torch.stack([rows, cols]))
    note("narrow", x.narrow(2, 1, 2))
    note("select", x.select(1, 2))
    y = torch.zeros(3, 5)
    y[1] = 1
    y[:, 2] = torch.tensor([7.0, 8.0, 9.0])
    y[[0, 2], [0, 4]] = -1
    y[y == 1] = 0.5
    note("assigned", y)
    index, source = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    note("scatter", torch.zeros(2, 4).scatter_(1, index, source))
    note("scatter_add", torch.zeros(3).scatter_add_(0, torch.tensor([0, 0, 2]), torch.tensor([1.0, 2.0, 5.0])))
    note("index_add", torch.zeros(3, 2).index_add_(0, torch.tensor([2, 2]), torch.ones(2, 2)))
    note("index_fill", torch.zeros(3, 2).index_fill_(0, torch.tensor([1]), 4.0))
    for i, row in enumerate(x[0]):
        assert row.tolist() == x[0, i].tolist()


def reshaping():
    x = torch.arange(12.0)
    note("view", x.view(3, -1))
    note("view_as", x.view_as(torch.empty(4, 3)))
    note("transpose", x.view(3, 4).transpose(0, 1))
    note("t", x.view(3, 4).t())
    note("T", x.view(3, 4).T)
    note("mT", x.view(1, 3, 4).mT)
    note("permute", x.view(2, 3, 2).permute(2, 0, 1))
    note("movedim", torch.movedim(x.view(2, 3, 2), 0, 2))
    note("squeeze", x.view(1, 12, 1).squeeze().unsqueeze(0))
    note("flatten", x.view(2, 2, 3).flatten(1))
    note("unflatten", x.view(2, 6).unflatten(1, (2, 3)))
    note("expand", x[:3].unsqueeze(1).expand(-1, 2))
    note("repeat", x[:3].repeat(2, 2))
    note("tile", torch.tile(x[:3], (2,)))
    note("repeat_interleave", x[:3].repeat_interleave(2))
    note("broadcast_to", torch.broadcast_to(x[:3], (2, 3)))
    note("cat", torch.cat([x[:2], x[-2:]]))
    note("stack", torch.stack((x[:2], x[2:4]), dim=1))
    note("hstack", torch.hstack([x[:2], x[2:3]]))
    note("vstack", torch.vstack([x[:2], x[2:4]]))
    note("flip", x.view(3, 4).flip(0, 1))
    note("roll", torch.roll(x, 2))
    note("rot90", torch.rot90(x.view(3, 4)))
    note("tril", torch.tril(x.view(3, 4), -1))
    note("diagonal", x[:9].view(3, 3).diagonal())
    note("unfold", x.unfold(0, 4, 2))
    parts = x.split([3, 4, 5])
    assert [len(p) for p in parts] == [3, 4, 5]
    note("chunk", x.chunk(3)[1])
    note("unbind", x.view(3, 4).unbind(0)[2])
    note("pad", torch.nn.functional.pad(x.view(3, 4), (1, 0, 2, 0), value=5.0))
    assert not x.view(3, 4).t().is_contiguous()
    assert x.view(3, 4).t().contiguous().is_contiguous()
    view = x.view(3, 4)
    view[0, 0] = 100.0
    assert x[0] == 100.0
    assert x.clone().data_ptr() != x.data_ptr()


def reducing():
    x = torch.tensor([[3.0, -1.0, 2.0], [0.5, 4.0, -2.5]])
    for name in "sum mean prod max min std var argmax argmin norm median".split():
        note(name, getattr(x, name)())
    for name in "sum mean prod std var argmax argmin logsumexp cumsum cumprod amax amin".split():
        note(name + "_1", getattr(x, name)(1))
    note("keepdim", x.sum(dim=-1, keepdim=True) + x.mean(0, keepdim=True))
    note("two_dims", x.view(1, 2, 3).sum(dim=(0, 2)))
    values, indices = x.max(dim=1)
    note("max_values", values)
    note("max_indices", indices)
    note("min_named", torch.min(x, 0).values)
    note("population", x.var(unbiased=False) + x.std(dim=1, correction=0))
    note("norm_1", x.norm(p=1) + torch.norm(x, dim=1) + x.norm(float("inf")))
    note("cummax", torch.cummax(x, dim=1).values)
    note("quantile", torch.quantile(x, 0.25))
    note("count", torch.count_nonzero(x > 0))
    note("any_all", torch.stack([(x > 3).any(), (x > -5).all(), torch.all(x > 0), torch.any(x < -2)]))
    note("any_dim", (x > 2).any(dim=0))
    note("sorted", torch.sort(x, dim=1, descending=True)[0])
    note("argsort", x.argsort(dim=0))
    note("topk", torch.topk(x.flatten(), 3).indices)
    note("kthvalue", x.flatten().kthvalue(2).values)
    unique, inverse, counts = torch.unique(torch.tensor([3, 1, 3, 2]), return_inverse=True, return_counts=True)
    note("unique", torch.cat([unique, inverse, counts]))
    note("histogram", torch.histc(x, bins=3, min=-3, max=6))
    note("bucketize", torch.bucketize(x, torch.tensor([0.0, 2.0])))
    note("searchsorted", torch.searchsorted(torch.tensor([1, 3, 5]), torch.tensor([0, 3, 6])))
    note("aminmax", torch.stack(torch.aminmax(x)))
    note("nansum", torch.nansum(torch.tensor([1.0, float("nan")])))
    note("diff", torch.diff(x))


def pointwise():
    x = torch.tensor([0.25, 0.5, 0.75, 1.0])
    names = "exp log log2 log10 log1p expm1 sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh sigmoid relu erf "
    names += "square reciprocal neg abs sign floor ceil round frac trunc softmax_ log_softmax_"
    for name in names.split():
        if name.endswith("_"):
            note(name + "0", getattr(x, name[:-1])(0))
        else:
            note(name, getattr(torch, name)(x))
    y = torch.tensor([2.0, -1.0, 0.5, 3.0])
    note("arithmetic", (x + y) * (x - y) / (y**2 + 1) % 0.7 + x // 0.3 - (-y) + 2**x + 1 / y - y.abs())
    note("functions", torch.add(x, y, alpha=2) + torch.sub(x, y) + torch.mul(x, y) + torch.div(x, y))
    note("rounding", torch.div(y, x, rounding_mode="floor") + torch.floor_divide(y, x) + torch.remainder(y, 2))
    note("powers", torch.pow(x, y) + torch.pow(2, x) + x.pow(2) + torch.float_power(x, 2))
    note("extremes", torch.maximum(x, y) + torch.minimum(x, y) + torch.max(x, y))
    note("clamp", torch.clamp(y, -0.5, 1.0) + y.clamp(min=0) + y.clip(max=1))
    note("where", torch.where(y > 0, y, x) + torch.where(y > 0, 1.0, 0.0))
    note("atan2", torch.atan2(y, x) + torch.hypot(x, y) + torch.lerp(x, y, 0.3))
    note("addcmul", torch.addcmul(x, x, y, value=0.5) + torch.addcdiv(x, y, x, value=0.1))
    note("comparisons", torch.stack([x == y, x != y, x < y, x <= y, x > y, x >= y, torch.eq(x, x), x.gt(y)]))
    note("logic", (x > 0.3) & (y > 0) | ~(x > 0.6) ^ (y < 0))
    note("logical", torch.logical_and(x > 0.3, y > 0).int() + torch.logical_not(x > 0.3).int())
    note("bits", (torch.tensor([5, 6]) & 3) + (torch.tensor([1, 2]) << 2))
    note("nan", torch.nan_to_num(torch.tensor([float("nan"), float("inf"), 1.0]), posinf=9.0))
    note("checks", torch.isnan(torch.tensor([math.nan, 1.0])).int() + torch.isinf(torch.tensor([math.inf, 1.0])).int())
    assert torch.equal(x, x.clone())
    assert torch.isclose(x, x + 1e-9).all()
    assert bool((x > 0).all())


def products():
    a = torch.arange(6.0).view(2, 3) - 2
    b = torch.arange(12.0).view(3, 4) / 3
    note("matmul", a @ b)
    note("mm", torch.mm(a, b) + a.matmul(b))
    note("mv", torch.mv(a, torch.ones(3)))
    note("dot", torch.dot(a[0], a[1]))
    note("outer", torch.outer(a[0], a[1]))
    note("bmm", torch.bmm(a.expand(2, 2, 3), b.expand(2, 3, 4)))
    note("batched", a.view(2, 1, 3) @ b)
    note("einsum", torch.einsum("ij,jk->ki", a, b))
    note("einsum_batch", torch.einsum("bij,bjk->bik", a.expand(2, 2, 3), b.expand(2, 3, 4)))
    note("einsum_trace", torch.einsum("ii", torch.ones(3, 3)))
    note("tensordot", torch.tensordot(a, b, dims=1))
    note("kron", torch.kron(torch.eye(2), a))
    note("cross", torch.linalg.cross(a[0], a[1]))
    note("addmm", torch.addmm(torch.ones(4), a, b) + torch.baddbmm(torch.zeros(1, 2, 4), a[None], b[None])[0])
    note("matrix_power", torch.linalg.matrix_power(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), 5))
    note("vector_norm", torch.linalg.vector_norm(a, dim=1))


def converting():
    x = torch.tensor([1.7, -2.3])
    note("long", x.long())
    note("int", x.int().float())
    note("to", x.to(torch.int32) + x.type(torch.int64))
    note("half", x.half().float())
    assert x.double().dtype == torch.float64
    assert (torch.tensor([1, 2]) / 2).dtype == torch.float32
    assert (torch.tensor([1]) + torch.tensor([1.0], dtype=torch.float64)).dtype == torch.float64
    assert (torch.tensor([1.0]) * 2).dtype == torch.float32
    assert (torch.tensor([True, False]).sum()).dtype == torch.int64
    assert torch.result_type(torch.tensor([1]), 1.0) == torch.float32
    assert x.dtype.is_floating_point
    assert torch.is_floating_point(x)
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps
    assert torch.iinfo(torch.int64).max == 2**63 - 1
    array = np.array([1.0, 2.0], dtype=np.float32)
    shared = torch.from_numpy(array)
    array[0] = 5.0
    assert shared[0] == 5
    assert torch.tensor(array)[0] == 5
    assert isinstance(shared.numpy(), np.ndarray)
    assert np.allclose(np.asarray(shared) * 2, [10, 4])
    assert np.sin(shared.numpy()).shape == (2,)
    assert x.tolist()[0] == float(x[0])
    assert int(torch.tensor(3.9)) == 3
    assert f"{torch.tensor(0.12345):.3f}" == "0.123"
    assert str(torch.tensor([1, 2])) == "tensor([1, 2])"
    assert x.cpu().device.type == "cpu"
    assert str(x.device) == "cpu"
    assert not x.is_cuda
    assert [1, 2][torch.tensor(1)] == 2
    assert sum(torch.tensor([1.0, 2.0])) == 3
    assert 2.0 in torch.tensor([1.0, 2.0])


def main(seed=0):
    torch.manual_seed(seed)
    RESULT.clear()
    making()
    indexing()
    reshaping()
    reducing()
    pointwise()
    products()
    converting()
    assert torch.pi == math.pi
    return dict(RESULT)


if __name__ == "__main__":
    print(main())
