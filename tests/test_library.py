"""Operations that programs define by name, and PyTorch's own under ``ops.aten``."""

import importlib

import numpy as np
import pytest

import kobai
from graphs import leaf
from kobai import library


def defined(t, ns):
    """An operation in each of the ways to define one, in framework ``t``: name → function of one tensor."""
    lib = t.library

    @lib.custom_op(f"{ns}::cube", mutates_args=())
    def cube(x: t.Tensor, scale: float = 1.0) -> t.Tensor:
        return t.from_numpy(scale * x.numpy() ** 3)

    @cube.register_fake
    def _(x, scale=1.0):
        return t.empty_like(x)

    def save(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.scale = inputs[1]

    cube.register_autograd(lambda ctx, dy: (3 * ctx.scale * ctx.saved_tensors[0] ** 2 * dy, None), setup_context=save)

    made = lib.Library(ns, "FRAGMENT")
    made.define("double(Tensor x) -> Tensor")
    made.impl("double", lambda x: x * 2, "CompositeImplicitAutograd")
    made.define("triple(Tensor x) -> Tensor")
    lib.impl(made, "triple", "CPU")(lambda x: x * 3)
    lib.register_autograd(f"{ns}::triple", lambda ctx, dy: dy * 3)
    lib.define(f"{ns}::negated", "(Tensor x) -> Tensor")
    lib.impl(f"{ns}::negated", "cpu")(lambda x: -x)

    @lib.custom_op(f"{ns}::add_one_", mutates_args={"x"})
    def add_one_(x: t.Tensor) -> None:
        x.add_(1)

    def changed(x):
        y = x.clone()
        add_one_(y)
        return y

    ops = getattr(t.ops, ns)
    return {
        "custom": cube,
        "custom, by name": lambda x: ops.cube(x, 2.0),
        "custom, by keyword": lambda x: ops.cube(x=x, scale=0.5),
        "overload": lambda x: ops.cube.default(x),
        "library": ops.double,
        "library, by device": ops.triple,
        "defined": ops.negated,
        "in place": changed,
    }, made


OURS, KEPT = defined(kobai, "ours")
DERIVED = ["custom", "custom, by name", "custom, by keyword", "overload", "library", "library, by device"]


def test_operations_are_computed_by_their_kernels():
    x = leaf(1.0, -2.0)
    wanted = {"custom, by name": [2, -16], "custom, by keyword": [0.5, -4], "library": [2, -4], "defined": [-1, 2]}
    with kobai.no_grad():
        for name, values in wanted.items():
            assert OURS[name](x).tolist() == values
        assert OURS["in place"](x).tolist() == [2, -1]
    assert kobai.autograd.gradcheck(OURS["custom, by name"], (leaf(0.5, 2.0),))


@pytest.mark.oracle
def test_operations_as_in_pytorch():
    torch = importlib.import_module("torch")
    theirs, _kept = defined(torch, "kobai_theirs")
    for name, op in OURS.items():
        results = []
        for t, function in ((kobai, op), (torch, theirs[name])):
            x = t.tensor([1.0, -2.0, 0.5], requires_grad=name in DERIVED)
            y = function(x)
            assert y.requires_grad == (name in DERIVED), name
            if name in DERIVED:
                (y * t.tensor([1.0, 2.0, 3.0])).sum().backward()
            results.append((y.detach().numpy(), None if x.grad is None else x.grad.numpy()))
        np.testing.assert_equal(*results)


def test_an_operation_without_a_gradient_says_so():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="ours::negated has no gradient"):
        kobai.ops.ours.negated(x).sum().backward()


def test_what_is_not_defined():
    for call, error, message in (
        (lambda: kobai.ops.nobody, AttributeError, "nobody"),
        (lambda: kobai.ops.ours.nothing, AttributeError, "ours has no operation 'nothing'"),
        (lambda: library.impl("ours::nothing", "cpu"), RuntimeError, "there is no operation 'ours::nothing'"),
        (lambda: library.define("name", "() -> ()"), ValueError, "'namespace::name', got 'name'"),
        (lambda: library.Library("aten", "IMPL").impl("add", len), NotImplementedError, "cannot be redefined"),
        (lambda: library.Library("ours", "NEW"), ValueError, "expected kind DEF"),
        (lambda: kobai.ops.aten._no_such_operation.default(1), NotImplementedError, r"'ops.aten._no_such_operation'"),
    ):
        with pytest.raises(error, match=message):
            call()
    library.define("ours::gpu", "(Tensor x) -> Tensor")
    library.impl("ours::gpu", "cuda")(lambda x: x)
    with pytest.raises(NotImplementedError, match="ours::gpu: expected a kernel for CPU, there are CUDA"):
        kobai.ops.ours.gpu(leaf(1.0))


ATEN = {
    "add.Tensor": (1,),
    "mul_.Tensor": (3,),
    "linalg_vector_norm.default": (),
    "special_expit.default": (),
    "leaky_relu.default": (0.1,),
    "clone.default": (),
    "index_select.default": (0, [0, 2, 2]),
    "amax.default": ([0],),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", ATEN)
def test_pytorchs_operations_by_name(name):
    torch = importlib.import_module("torch")
    packet, overload = name.split(".")
    results = []
    for t in (kobai, torch):
        op = getattr(getattr(t.ops.aten, packet), overload)
        assert op.name() == getattr(t.ops.aten, packet).default.name() if overload == "default" else f"aten::{name}"
        args = [t.tensor(a) if packet == "index_select" and isinstance(a, list) else a for a in ATEN[name]]
        results.append(op(t.tensor([1.0, -2.0, 0.5]), *args).numpy())
    np.testing.assert_allclose(*results, rtol=1e-6)


def test_overloads_are_keys_of_tables():
    table = {kobai.ops.aten.clone.default: 1, kobai.ops.aten.add.Tensor: 2}
    assert table[kobai.ops.aten.add.Tensor] == 2
    assert kobai.ops.aten.add.Scalar not in table
    assert kobai.ops.aten._foreach_neg.default([leaf(1.0)])[0] == -1
    assert str(kobai.ops.aten.add.Tensor) == "aten.add.Tensor"
    assert kobai.ops.aten.add.overloads() == ["default"]


def test_numpy_needs_no_detach_where_nothing_is_recorded():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="requires a gradient"):
        x.numpy()
    with kobai.no_grad():
        assert x.numpy() == [1]
        assert np.asarray(x) == [1]
