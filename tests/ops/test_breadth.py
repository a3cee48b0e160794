"""Operations that few programs use, against PyTorch: results, dtypes, gradients; views of memory; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_cases import F, cases, dtype_name, flat, host, make

import kobai
from kobai import xp

CALLS = """
as_strided: a.as_strided((2, 3), (1, 2), 1)
as_strided_windows: T.as_strided(v, (3, 3), (1, 1)) * a[:3]
as_strided_of_view: a[1:].as_strided((2, 2), (3, 1))
as_strided_of_column: a[:, 1].as_strided((3,), (3,))
as_strided_transposed: a.t().as_strided((4, 3), (3, 1))
as_strided_nothing: a.as_strided((0, 3), (3, 1))
as_strided_written: y = a * 1; y.as_strided((3,), (4,)).mul_(2); a = y
as_strided_itself: y = v * 1; y.as_strided_((2, 2), (2, 1)); a = y
select_scatter: a.select_scatter(v[:3], 0, -1)
slice_scatter: T.slice_scatter(a, b[:2], 0, 1, None, 2)
slice_scatter_end: a.slice_scatter(b[:, :2], dim=1, end=2)
diagonal_scatter: a.diagonal_scatter(v[:2], 1)
logcumsumexp: a.logcumsumexp(0)
logcumsumexp_row: T.logcumsumexp(c, -1)
logcumsumexp_scalar: s.logcumsumexp(0)
logcumsumexp_large: T.logcumsumexp(1000 * a, 1)
gradient: T.gradient(a)
gradient_spacing: T.gradient(a, spacing=[0.5, 2.0], edge_order=2)
gradient_coordinates: T.gradient(c, spacing=(v[:4].exp().cumsum(0),), dim=2)
gradient_dim: T.gradient(c, dim=(0, 2))
gradient_integers: T.gradient(T.tensor([1, 4, 9, 16]))
nanquantile: T.nanquantile(T.where(a > 0.5, float("nan"), a), T.tensor([0.2, 0.7], dtype=T.float64), 1)
nanquantile_all: T.where(a > 0.5, float("nan"), a).nanquantile(0.3, interpolation="nearest")
nanquantile_nothing: T.nanquantile(T.tensor([float("nan")]), 0.5)
addr: T.addr(a, v[:4], v[2:], beta=0.5, alpha=2)
addr_booleans: T.addr(T.tensor([True]), T.tensor([True, False]), T.tensor([True]), beta=0)
addbmm: T.addbmm(a[:2, :2], c[:, :2], c.mT[:, :, :2], beta=2)
addbmm_integers: T.addbmm(T.ones(1, 1).long(), T.ones(2, 1, 3).long(), T.ones(2, 3, 1).long(), beta=1.5)
ldexp: T.ldexp(a, T.tensor([2, 1, 0]))
ldexp_floats: T.ldexp(a, v[:3])
ldexp_integers: T.ldexp(T.tensor([3]), T.tensor([2]))
frexp: T.frexp(a)
frexp_half: T.frexp(T.tensor([0.3, 6.0], dtype=T.float16))
logaddexp2: T.logaddexp2(a, v[:3])
nextafter: T.nextafter(a, b)
index_reduce_prod: a.index_reduce(0, T.tensor([0, 2, 0, 1]), b, "prod")
index_reduce_mean: c.index_reduce(1, T.tensor([0, 0]), c[:, :2], "mean", include_self=False)
index_reduce_amax: T.index_reduce(a, 1, T.tensor([1, 0, 1]), b, "amax")
scatter_product: a.scatter_reduce(0, T.tensor([[0, 1, 1], [0, 2, 1]]), b[:2], "prod")
scatter_product_alone: a.scatter_reduce(0, T.tensor([[0, 1, 1], [0, 2, 1]]), b[:2], "prod", include_self=False)
scatter_product_zeros: (a * (a > 0)).scatter_reduce(1, T.tensor([[0, 0, 0]] * 4), b * (b > 0), "prod")
scatter_product_scalar: s.scatter_reduce(0, T.tensor(0), v[0], "prod")
scatter_multiply: T.scatter(a.detach(), 0, T.tensor([[0, 1, 1]]), 2.0, reduce="multiply")
put: a.put(T.tensor([[0, -1]]), v[:2])
put_accumulate: T.put(a, T.tensor([1, 1]), v[:2], accumulate=True)
fill: T.fill(a, s)
kron: a.kron(v)
split_with_sizes: a.split_with_sizes((1, 3))[1]
unsafe_split: T.unsafe_split(a, 3)[1]
unsafe_chunk: a.unsafe_chunk(2, 1)[1]
real: T.real(a) * a.real
conj: a.conj() * T.conj_physical(a) * T.resolve_conj(a) * a.resolve_neg()
angle: T.angle(a)
angle_special: T.angle(T.tensor([-1.0, -0.0, float("nan"), float("-inf"), float("inf")]))
angle_integers: T.angle(T.tensor([-1, 2]))
isreal: T.isreal(a)
adjoint: c.adjoint()
arctan2: T.arctan2(a, b)
bitwise_number: T.bitwise_left_shift(2, T.tensor([0, 3]))
xlogy_number: T.xlogy(2.0, a.exp())
exp_: y = a * 1; T.exp_(y); a = y
zero_: y = a * 1; T.zero_(y); a = y
addmm_: y = a * 1; y.addmm_(a, a[:3], beta=0.5); a = y
addr_: y = a * 1; y.addr_(v[:4], v[2:]); a = y
baddbmm_: y = c * 1; y.baddbmm_(c[:, :, :3], c, alpha=2); a = y
renorm_: y = a * 1; y.renorm_(2, 0, 0.5); a = y
float_power_: y = a.exp() * 1; y.float_power_(2); a = y
put_: y = a * 1; y.put_(T.tensor([0, 3]), v[:2]); a = y
index_reduce_: y = a * 1; y.index_reduce_(0, T.tensor([0, 0]), b[:2], "amin"); a = y
swapaxes_: y = a * 1; y.swapaxes_(0, 1); a = y
older_add: T.add(a, 2, b) + a.add(0.5, b)
older_sub: T.sub(a, 2, b)
older_add_: y = a * 1; y.mul_(0.9).add_(0.1, b); a = y
older_addcmul: T.addcmul(a, 0.5, b, v[:3]) + a.addcmul(2, b, b)
older_addcdiv_: y = a * 1; y.addcdiv_(-0.1, b, b.exp()); a = y
older_addmm: T.addmm(0.5, a, 2, a, a[:3])
older_addmm_beta: T.addmm(0.5, a, a, a[:3])
older_baddbmm: T.baddbmm(2, c[:, :, :3], 3, c, c.mT)
older_addmv_: y = v[:4] * 1; y.addmv_(2, 3, a, v[:3]); a = y
einsum_lists: T.einsum(a, [0, 1], b, [0, 2], [1, 2])
einsum_lists_implicit: T.einsum(c, [..., 1], v[:4], [1])
view_dtype: T.tensor([1.0, -2.0]).view(T.int32)
view_dtype_smaller: T.tensor([[1, 2]]).view(dtype=T.int16)
view_dtype_larger: T.zeros(2, 8, dtype=T.uint8).view(T.float64)
named_sizes: a.permute(dims=(1, 0)).reshape(shape=(2, 6)).view(size=(6, 2)).repeat(repeats=(1, 2))
named_expand: v.expand(size=(2, 5)) + T.tile(v, dims=(2, 1))
named_new: a.new_zeros(size=(2, 2)) + a.new_ones(size=(2, 2))
named_split: a.split(split_size=3)[1]
repeat_interleave_counts: T.repeat_interleave(T.tensor([2, 0, 1]))
isin_number: T.isin(T.tensor([1, 2]), 2)
isin_of_number: T.isin(2, T.tensor([1, 2]))
bartlett_window: T.bartlett_window(6)
kaiser_window: T.kaiser_window(6, False, 8.0, dtype=T.float64)
kaiser_window_periodic: T.kaiser_window(5, True, beta=5.0)
range: T.range(1, 2, 0.25)
range_down: T.range(5, 0, -2)
asarray: T.asarray([[1, 2], [3, 4]])
frombuffer: T.frombuffer(bytearray(range(16)), dtype=T.int16, offset=2, count=3)
byte_tensor: T.ByteTensor([1, 2]) + T.CharTensor([1]).byte() + T.ShortTensor([7]).byte()
half_tensor: T.HalfTensor([1.5])
numbers_add: T.add(1, 2)
numbers_mul: T.mul(1.5, 2)
numbers_div: T.div(True, 4)
reflected: (3 - T.tensor([1, 2])) * (7 % T.tensor([2, 4])) + (2 ** T.tensor([1, 2])) // (5 // T.tensor([1, 2]))
reflected_bits: (6 & T.tensor([3, 4])) + (6 | T.tensor([3, 4])) + (6 ^ T.tensor([3, 4]))
"""


ANSWERS = [
    "a.is_cpu, a.is_mps, a.is_xpu, a.is_meta, a.is_quantized, a.is_nested, a.is_mkldnn, a.is_sparse_csr",
    "a.is_shared(), a.is_pinned(), a.is_inference(), a.to_dense() is a, a.is_set_to(a), a.is_set_to(a.t())",
    "a.storage().size(), len(a.storage()), a.storage().element_size(), a.untyped_storage().nbytes()",
    "a[1:].storage().tolist() == a.storage().tolist(), T.tensor([257], dtype=T.int16).untyped_storage().tolist()",
    "a[1:].untyped_storage().data_ptr() == a.storage().data_ptr(), a[1:].data_ptr() == a.data_ptr()",
    "a.stride(0), a.stride(-1), a.t().stride(0), a.t().dim_order(), a.is_conj(), a.is_neg(), T.is_complex(a)",
    "T.is_same_size(a, a.t()), T.asarray(a) is a, T.get_num_interop_threads() > 0, T.get_deterministic_debug_mode()",
    "T.is_deterministic_algorithms_warn_only_enabled(), T.is_inference_mode_enabled(), T.detach(a).is_leaf",
    "T.dropout(a, 0.5, False).shape, T.layer_norm(a, (3,)).shape, T.group_norm(a, 3).shape, T.hardshrink(a).shape",
]


@pytest.mark.oracle
@pytest.mark.parametrize("code", ANSWERS)
@pytest.mark.filterwarnings("ignore")
def test_answers(code):
    torch = pytest.importorskip("torch")
    said = [eval(code, {"T": T, "a": T.ones(4, 3), "len": len}) for T in (kobai, torch)]
    assert said[0] == said[1]


def run(T, code: str):
    rng = np.random.default_rng(1)
    names = {
        "T": T,
        "float": float,
        "bytearray": bytearray,
        "range": range,
        **{name: make(T, rng.normal(size=shape)) for name, shape in F.items()},
    }
    leaves = [names[name] for name in F]
    if ";" in code:
        exec(code, names)
        result = names["a"]
    else:
        result = eval(code, names)
    result = flat(list(result) if isinstance(result, list) else result)
    recorded = [y for y in result if y.requires_grad]
    if recorded:
        sum((y * y.detach().cos()).nansum() for y in recorded).backward()
    return result, [None if leaf.grad is None else host(leaf.grad) for leaf in leaves]


@pytest.mark.oracle
@pytest.mark.parametrize("code", cases(CALLS))
@pytest.mark.filterwarnings("ignore:index_reduce", "ignore:This overload", "ignore:torch.range")
def test_result_dtype_and_gradient(code):
    torch = pytest.importorskip("torch")
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
            np.testing.assert_allclose(0 * g if mine is None else mine, g, rtol=1e-11, atol=1e-12)


def test_as_strided_shares_memory_and_history():
    x = kobai.zeros(3, 4)
    x.as_strided((3,), (5,)).fill_(1)
    assert kobai.equal(x, kobai.eye(3, 4))
    assert kobai.equal(
        x[1:].as_strided((2, 2), (1, 4), 0), x[:2, :2].T
    )  # places count from the beginning of the memory
    y = x.t().as_strided((12,), (1,))
    assert kobai.equal(y, x.reshape(-1))


def test_resize_keeps_the_first_elements(backend):
    x = kobai.arange(6).reshape(2, 3)
    kept = x.array
    assert kobai.equal(x.resize_(2, 2), kobai.tensor([[0, 1], [2, 3]]))
    assert np.shares_memory(xp.to_host(x.array), xp.to_host(kept)) or backend != "numpy"
    seen = x[1]
    x.resize_(8)[4:] = 9
    assert x.tolist() == [0, 1, 2, 3, 9, 9, 9, 9]
    seen.fill_(7)
    assert x.tolist()[:4] == [0, 1, 2, 3]  # moved to larger memory
    assert kobai.zeros(0).resize_as_(x).shape == (8,)
    y = x[2:4]
    y.resize_(1).fill_(5)
    assert x.tolist()[2:4] == [5, 3]
    with pytest.raises(RuntimeError, match="resize_: expected a tensor that requires no gradient"):
        kobai.zeros(2, requires_grad=True).resize_(1)


def test_methods_in_place_are_functions_too():
    x = kobai.tensor([1.0, 4.0])
    assert kobai.sqrt_(x) is x
    assert x.tolist() == [1.0, 2.0]
    assert not hasattr(kobai, "sqr_")


def test_binomial_counts_successes(backend):
    kobai.manual_seed(0)
    drawn = kobai.binomial(kobai.full((20000,), 10.0), kobai.full((20000,), 0.25))
    assert drawn.mean().item() == pytest.approx(2.5, abs=0.05)
    assert drawn.var().item() == pytest.approx(1.875, abs=0.08)
    with pytest.raises(RuntimeError, match="binomial: expected count >= 0"):
        kobai.binomial(kobai.ones(1), kobai.full((1,), 1.5))


REFUSED = {
    "T.maximum(x, 2)": TypeError,
    "T.fmin(x, 2)": TypeError,
    "T.atan2(2, x)": TypeError,
    "T.gcd(i, 2)": TypeError,
    "T.hypot(i, i)": NotImplementedError,
    "T.logaddexp(i, i)": NotImplementedError,
    "T.logcumsumexp(i, 0)": NotImplementedError,
    "T.frexp(i)": RuntimeError,
    "T.ldexp(x, i > 0)": NotImplementedError,
    "T.heaviside(x, x.double())": RuntimeError,
    "T.isclose(x, x.double())": RuntimeError,
    "T.clamp(i > 0, max=True)": NotImplementedError,
    "T.imag(x)": RuntimeError,
    "x.imag": RuntimeError,
    "x.clone().float_power_(2)": RuntimeError,
    "x.as_strided((2,), (2,), 2)": RuntimeError,
    "x.as_strided((2,), (-1,))": RuntimeError,
    "x.as_strided((2,), (1, 1))": RuntimeError,
    "T.gradient(x[:1])": RuntimeError,
    "T.gradient(x, spacing=[1.0, 2.0])": RuntimeError,
    "T.select_scatter(x, x, 0, 0)": RuntimeError,
    "T.slice_scatter(x, x, step=0)": RuntimeError,
    "T.index_reduce(x, 0, i, x, 'sum')": RuntimeError,
    "T.scatter_reduce(x, 0, i, x, 'product')": RuntimeError,
    "T.scatter(x, 0, i, x[None])": RuntimeError,
    "T.put(x, i, i)": RuntimeError,
    "T.put(x, i, x[:1])": IndexError,
    "T.fill(x, x)": RuntimeError,
    "T.nanquantile(x, 2.0)": RuntimeError,
    "T.nanquantile(i, 0.5)": RuntimeError,
    "T.add(x, 1, 2, x)": TypeError,
    "T.bitwise_and(1, 2)": TypeError,
    "T.maximum(1, 2)": TypeError,
    "T.sub(True, True)": RuntimeError,
    "type(x).__radd__(2, x)": TypeError,
    "'a' + x": TypeError,
    "x.stride(1)": IndexError,
    "T.zeros(3, dtype=T.uint8).view(T.float32)": RuntimeError,
    "T.range(0, 3, -1)": RuntimeError,
    "T.set_num_interop_threads(0)": RuntimeError,
    "T.set_deterministic_debug_mode('loud')": RuntimeError,
    "T.set_default_tensor_type('torch.LongTensor')": TypeError,
    "T.kaiser_window(3, True, 1.0, 2.0)": TypeError,
}


@pytest.mark.parametrize("code", REFUSED)
def test_refused(code):
    with pytest.raises(REFUSED[code], match=r"expected|reach|cannot|integers|concatenate"):
        eval(code, {"T": kobai, "x": kobai.tensor([1.0, 2.0, 3.0]), "i": kobai.tensor([0, 1, 2])})


@pytest.mark.oracle
@pytest.mark.parametrize("code", REFUSED)
@pytest.mark.filterwarnings("ignore:index_reduce", "ignore:torch.range")
def test_refused_by_pytorch_too(code):
    torch = pytest.importorskip("torch")
    with pytest.raises(REFUSED[code]):
        eval(code, {"T": torch, "x": torch.tensor([1.0, 2.0, 3.0]), "i": torch.tensor([0, 1, 2])})
