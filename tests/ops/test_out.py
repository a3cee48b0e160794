"""``out=``: results written into a tensor that is there already."""

from __future__ import annotations

import pickle

import pytest

import kobai

A, B = [[1.0, 2.0], [3.0, 4.0]], [[0.5, 1.0], [2.0, 4.0]]
CASES = {
    "add": lambda a, b, **o: kobai.add(a, b, **o),
    "sub": lambda a, b, **o: kobai.sub(a, b, alpha=2, **o),
    "mul": lambda a, b, **o: kobai.mul(a, b, **o),
    "div": lambda a, b, **o: kobai.div(a, b, **o),
    "floor": lambda a, b, **o: kobai.div(a, b, rounding_mode="floor", **o),
    "exp": lambda a, b, **o: kobai.exp(a, **o),
    "matmul": lambda a, b, **o: kobai.matmul(a, b, **o),
    "mm": lambda a, b, **o: kobai.mm(a, b, **o),
    "mv": lambda a, b, **o: kobai.mv(a, b[0], **o),
    "bmm": lambda a, b, **o: kobai.bmm(a[None], b[None], **o),
    "cat": lambda a, b, **o: kobai.cat([a, b], 1, **o),
    "stack": lambda a, b, **o: kobai.stack([a, b], **o),
    "maximum": lambda a, b, **o: kobai.maximum(a, b, **o),
    "mean": lambda a, b, **o: kobai.mean(a, 1, **o),
    "sum over an axis": lambda a, b, **o: kobai.sum(a, axis=1, keepdims=True, **o),
    "clamp": lambda a, b, **o: kobai.clamp(a, 2, 3, **o),
    "linear": lambda a, b, **o: kobai.nn.functional.linear(a, b, **o),
    "normalize": lambda a, b, **o: kobai.nn.functional.normalize(a, **o),
    "inv": lambda a, b, **o: kobai.linalg.inv(a, **o),
    "logit": lambda a, b, **o: kobai.special.logit(a / 5, **o),
}


@pytest.mark.parametrize("call", CASES.values(), ids=CASES)
def test_the_result_is_written_into_out(call, backend):
    a, b = kobai.tensor(A), kobai.tensor(B)
    expected = call(a, b)
    out = kobai.zeros_like(expected)
    memory = out.array
    assert call(a, b, out=out) is out
    assert out.array is memory
    assert kobai.equal(out, expected)
    empty = kobai.empty(0)
    call(a, b, out=empty)
    assert kobai.equal(empty, expected)
    double = kobai.zeros_like(expected, dtype=kobai.float64)
    assert call(a, b, out=double).dtype == kobai.float64


def test_a_pair_is_written_into_a_pair(backend):
    a = kobai.tensor([[3.0, 1.0, 2.0]])
    out = kobai.empty(0), kobai.empty(0, dtype=kobai.int64)
    for call in (lambda **o: kobai.sort(a, **o), lambda **o: kobai.max(a, 1, **o), lambda **o: kobai.topk(a, 2, **o)):
        out[0].resize_(0), out[1].resize_(0)
        expected, found = call(), call(out=out)
        assert type(found) is type(expected)
        assert all(f is o and kobai.equal(f, e) for f, o, e in zip(found, out, expected, strict=True))
    with pytest.raises(RuntimeError, match="sort: expected 2 tensors as out=, got 1"):
        kobai.sort(a, out=out[:1])
    with pytest.raises(RuntimeError, match="max: expected 2 tensors as out="):
        kobai.max(a, 1, out=out[0])


def test_what_is_chosen_or_moved_keeps_its_dtype():
    a, wide = kobai.tensor([[3.0, 1.0]]), kobai.empty(0, dtype=kobai.float64)
    for name, call in {
        "gather": lambda o: kobai.gather(a, 1, kobai.tensor([[0]]), out=o),
        "amax": lambda o: kobai.amax(a, 1, out=o),
        "max": lambda o: kobai.max(a, 1, out=(o, kobai.empty(0, dtype=kobai.int64))),
        "softmax": lambda o: kobai.softmax(a, 1, out=o),
    }.items():
        with pytest.raises(RuntimeError, match=rf"{name}: expected out= of kobai\.float32, got kobai\.float64"):
            call(wide)
    assert kobai.max(a, out=wide) is wide


def test_what_is_made_new_has_the_dtype_of_out(backend):
    for call in (
        lambda **o: kobai.zeros(3, **o),
        lambda **o: kobai.arange(3, **o),
        lambda **o: kobai.linspace(0, 4, 3, **o),
    ):
        for dtype in (kobai.int64, kobai.float64):
            out = kobai.ones(3, dtype=dtype)
            assert call(out=out) is out
            assert kobai.equal(out, call(dtype=dtype))


def test_functions_with_out_are_found_where_they_are_offered():
    for function in (kobai.maximum, kobai.linalg.inv, kobai.nn.functional.normalize, kobai.special.logit):
        assert pickle.loads(pickle.dumps(function)) is function
    assert kobai.fix is kobai.trunc
    with pytest.raises(TypeError, match="out"):
        kobai.reshape(kobai.ones(2), (2,), out=kobai.ones(2))  # a view is not written anywhere
    with pytest.raises(TypeError, match="out"):
        kobai.ones(2).maximum(kobai.ones(2), out=kobai.ones(2))  # nor do methods take it


def test_out_may_be_an_operand():
    a = kobai.tensor(A)
    kobai.matmul(a, kobai.tensor(B), out=a)
    assert kobai.equal(a, kobai.tensor(A) @ kobai.tensor(B))


def test_bad_out():
    a, b = kobai.tensor(A), kobai.tensor(B)
    with pytest.raises(RuntimeError, match=r"add: expected out= of shape \(2, 2\), got \(3,\)"):
        kobai.add(a, b, out=kobai.zeros(3))
    with pytest.raises(RuntimeError, match=r"float32 cannot be kept in an out= tensor of .*int64"):
        kobai.add(a, b, out=kobai.zeros(2, 2, dtype=kobai.int64))
    with pytest.raises(RuntimeError, match="no part in differentiation"):
        kobai.mul(a.requires_grad_(), b, out=kobai.zeros(2, 2))
    with kobai.no_grad():
        kobai.mul(a, b, out=kobai.zeros(2, 2))
    with pytest.raises(TypeError, match="expected a Tensor, got list"):
        kobai.cat([b, b], out=[])


def test_a_tensor_that_backward_needs_is_not_overwritten_unseen():
    x, y = kobai.ones(2, requires_grad=True), kobai.ones(2)
    z = (x * y).sum()
    kobai.add(y, y, out=y)
    with pytest.raises(RuntimeError, match="changed in place"):
        z.backward()


def test_an_expanded_tensor_holds_no_result():
    x = kobai.ones(5, 5)
    with pytest.raises(
        RuntimeError, match=r"cat: elements of out= of shape \(10, 5\) share memory; clone\(\) it first"
    ):
        kobai.cat([x, x], out=kobai.ones(1, 5).expand(10, 5))
    assert kobai.cat([x, x], out=kobai.ones(10, 1).expand(10, 1).repeat(1, 5)).shape == (10, 5)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("relu_", ()),
        ("elu_", (0.5,)),
        ("leaky_relu_", (0.1,)),
        ("celu_", ()),
        ("selu_", ()),
        ("hardtanh_", (-0.5, 0.5)),
        ("threshold_", (0.1, 7.0)),
        ("rrelu_", ()),
        ("dropout_", (1.0,)),
    ],
)
def test_functions_for_layers_have_forms_in_place_too(name, args):
    F = kobai.nn.functional
    x = kobai.linspace(-1, 1, 7)
    expected = getattr(F, name[:-1])(x.clone(), *args)
    assert getattr(F, name)(x, *args) is x
    assert kobai.equal(x, expected)
    assert not hasattr(F, "exp_")
    assert not hasattr(F, "linear_")


def test_the_forms_of_poolings_with_indices():
    F, x = kobai.nn.functional, kobai.randn(1, 2, 6)
    for found, right in zip(F.max_pool1d_with_indices(x, 2), F.max_pool1d(x, 2, return_indices=True), strict=True):
        assert kobai.equal(found, right)
    assert F.adaptive_max_pool1d_with_indices(x, 3)[1].shape == (1, 2, 3)
    assert not hasattr(F, "avg_pool1d_with_indices")
    assert not hasattr(kobai, "no_such_function_")
