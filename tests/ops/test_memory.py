"""Whose memory a result is, in every form of every function.

Functions are called with arguments for which many of them have nothing to do (no padding, a factor of 1, one element), as it
is there that a result may turn out to be the input. Calls that a function refuses are no calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest

import kobai
from kobai import linalg, special
from kobai.nn import functional as F

STATE = ("manual_seed", "seed", "set_", "use")  # these change what the tests after them find
SPACES = {"": kobai, "F.": F, "linalg.": linalg, "special.": special}
FUNCTIONS = {
    prefix + name: getattr(space, name)
    for prefix, space in SPACES.items()
    for name in dir(space)
    if inspect.isfunction(getattr(space, name)) and not name.startswith(("_", *STATE))
}
METHODS = {f"Tensor.{n}": f for n, f in vars(kobai.Tensor).items() if inspect.isfunction(f) and n != "__init__"}
IN_PLACE = {
    name for name in METHODS if (name.endswith("_") and not name.endswith("__")) or name.startswith("Tensor.__i")
}

# --- what shares memory by definition ---------------------------------------------------------------------------------

VIEWS = {  # PyTorch's list of view operations: a call of each on x of shape (2, 1, 4), in which it is a view of x
    "T": lambda x: x[0].T,
    "mT": lambda x: x.mT,
    "H": lambda x: x[0].H,
    "__getitem__": lambda x: x[:, 0, 1:],
    "__iter__": lambda x: tuple(x),
    "__array_wrap__": None,  # of an array that is given
    "__copy__": None,  # of Python: the same memory, wrapped anew
    "adjoint": lambda x: x.adjoint(),
    "as_strided": lambda x: x.as_strided((2, 2), (4, 1)),
    "asarray": lambda x: kobai.asarray(x),
    **{n: lambda x, n=n: getattr(x, n)() for n in "conj conj_physical resolve_conj resolve_neg to_dense".split()},
    "real": lambda x: x.real,
    "split_with_sizes": lambda x: x.split_with_sizes([1, 1]),
    "unsafe_chunk": lambda x: x.unsafe_chunk(2),
    "unsafe_split": lambda x: x.unsafe_split(1),
    "as_tensor": lambda x: kobai.as_tensor(x),
    "atleast_1d": lambda x: kobai.atleast_1d(x),
    "atleast_2d": lambda x: kobai.atleast_2d(x),
    "atleast_3d": lambda x: kobai.atleast_3d(x),
    "broadcast_tensors": lambda x: kobai.broadcast_tensors(x, kobai.zeros(3, 1))[0],
    "broadcast_to": lambda x: x.broadcast_to((3, 2, 1, 4)),
    "cartesian_prod": lambda x: kobai.cartesian_prod(x.reshape(-1)),  # of one vector
    "chain_matmul": lambda x: kobai.chain_matmul(x[0]),  # of one matrix
    "chunk": lambda x: x.chunk(2),
    "data": lambda x: x.data,
    "detach": lambda x: x.detach(),
    "diagonal": lambda x: x.diagonal(0, 0, 2),
    "dsplit": lambda x: x.dsplit(2),
    "expand": lambda x: x.expand(2, 3, 4),
    "expand_as": lambda x: x.expand_as(kobai.zeros(2, 3, 4)),
    "flatten": lambda x: x.flatten(1),
    "from_dlpack": lambda x: kobai.from_dlpack(x),
    "hsplit": lambda x: x.hsplit(1),
    "linalg.diagonal": lambda x: linalg.diagonal(x),
    "meshgrid": lambda x: kobai.meshgrid(x.reshape(-1), kobai.zeros(2), indexing="ij")[0],
    "moveaxis": lambda x: x.moveaxis(0, 1),
    "movedim": lambda x: x.movedim(0, 1),
    "narrow": lambda x: x.narrow(2, 1, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "ravel": lambda x: x.ravel(),
    "reshape": lambda x: x.reshape(4, 2),
    "reshape_as": lambda x: x.reshape_as(kobai.zeros(8)),
    "select": lambda x: x.select(0, 1),
    "split": lambda x: x.split(1),
    "squeeze": lambda x: x.squeeze(),
    "sum_to_size": lambda x: x.sum_to_size(2, 1, 4),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "swapdims": lambda x: x.swapdims(0, 1),
    "t": lambda x: x[0].t(),
    "tensor_split": lambda x: x.tensor_split(2),
    "transpose": lambda x: x.transpose(0, 2),
    "unbind": lambda x: x.unbind(2),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "view": lambda x: x.view(8),
    "view_as": lambda x: x.view_as(kobai.zeros(8)),
    "vsplit": lambda x: x.vsplit(2),
    # the tensor itself, where there is nothing to convert
    "__pos__": lambda x: +x,
    "contiguous": lambda x: x.contiguous(),
    "cpu": lambda x: x.cpu(),
    "pin_memory": None,
    "positive": lambda x: x.positive(),
    "requires_grad_": lambda x: x.requires_grad_(),
    "to": lambda x: x.to(kobai.float32),
    "type": lambda x: x.type(kobai.float32),
    "type_as": lambda x: x.type_as(x),
    "float": lambda x: x.float(),
    **dict.fromkeys("double half long int short char byte bool".split()),
    # the tensor itself, where nothing is dropped
    "F.dropout": lambda x: F.dropout(x, training=False),
    "F.dropout1d": lambda x: F.dropout1d(x, training=False),
    "F.dropout2d": lambda x: F.dropout2d(x[None], training=False),
    "F.dropout3d": lambda x: F.dropout3d(x[None], training=False),
    "F.alpha_dropout": lambda x: F.alpha_dropout(x, training=False),
    "F.feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, training=False),
    # in place, in their third or second argument
    **{
        f"F.{name}": lambda x, name=name: getattr(F, name)(x, inplace=True)
        for name in "celu elu hardsigmoid hardswish hardtanh leaky_relu mish relu relu6 rrelu selu silu".split()
    },
    "F.threshold": lambda x: F.threshold(x, 0.0, 0.0, inplace=True),
    **dict.fromkeys("celu relu relu_ selu threshold".split()),
}


@pytest.mark.parametrize("name", [name for name, call in VIEWS.items() if call is not None])
def test_views_share_memory(name):
    x = kobai.arange(8.0).reshape(2, 1, 4)
    for part in _tensors(VIEWS[name](x)):
        assert np.shares_memory(part.array, x.array)
        if 0 not in part.stride() or part.numel() == 1:
            part.detach().fill_(7.0)
            assert (x == 7).sum() >= part.detach().unique().numel()


def test_what_is_written_into_windows_arrives():
    x = kobai.zeros(6)
    x.unfold(0, 2, 2)[:, 1] = 1.0
    assert x.tolist() == [0, 1, 0, 1, 0, 1]
    y = (kobai.zeros(6, requires_grad=True) * 1.0).clone()
    w = kobai.ones(3, requires_grad=True)
    y.unfold(0, 2, 2)[:, 0] = w * 2
    y.sum().backward()
    assert w.grad.tolist() == [2, 2, 2]


def test_expanded_tensors_are_written_to_where_no_element_repeats():
    x = kobai.zeros(1, 3)
    x.expand(1, 3).add_(1)
    assert x.tolist() == [[1, 1, 1]]
    x.expand(2, 3)[0] = 5.0
    assert x.tolist() == [[5, 5, 5]]
    for write in (lambda y: y.add_(1), lambda y: y.fill_(1), lambda y: y.__setitem__(slice(None), 1.0)):
        with pytest.raises(RuntimeError, match=r"expanded tensor of shape \(2, 3\) share memory"):
            write(x.expand(2, 3))


# --- what does not ------------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, -1, 2, 1.0, 0.0, (), (0,), (1,), (0, 0), (1, 1), (0, 1), (0, 0, 0, 0), np.inf)


def _inputs() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for dtype in ("float32", "int64", "bool"):
        for shape in ((), (1,), (3,), (2, 2), (1, 2, 2), (1, 1, 2, 2)):
            yield (2 * rng.normal(size=shape)).astype(dtype)


def _arguments(x: kobai.Tensor) -> Iterator[tuple]:
    """Calls of every kind of function with ``x``."""
    zero, none = kobai.tensor(0), kobai.zeros(0, dtype=kobai.int64)
    yield (x,)
    yield from ((x, number) for number in NUMBERS)
    yield from ((x, a, b) for a, b in ((0, 0), (0, 1), (1, 0), (-np.inf, np.inf)))
    yield from ((x, a, 1, 1) for a in (0, 1))
    yield from ((x, tuple(x.shape)), (x, *x.shape), (x, tuple(x.shape[2:]) or 1), (x, tuple(x.shape[-1:])))
    yield from ((x, x.clone()), (x, x.clone(), x.clone()), ([x],), ([x], 0), ((x, x.clone()),))
    yield from (
        (x, x > 0),
        (x, x > 99),
        (x, x > 99, 0),
        (x > 99, x, x.clone()),
        (x > -99, x, x.clone()),
        (x > -99, x, 0),
    )
    yield from ((x, 0, zero), (x, 0, kobai.tensor([0])), (x, 0, none), (x, none), (x, kobai.tensor([0])), (x, zero))
    first = kobai.zeros(x.shape, dtype=kobai.int64)
    yield from ((x, 0, first, x.clone()), (x, 0, none, x.clone()))
    yield from ((x, 0, first, x.clone(), how) for how in ("sum", "mean", "amax"))
    yield from ((x, kobai.tensor(1.0)), (kobai.zeros_like(x), x), (kobai.ones_like(x), x))
    yield from ((spec, x) for spec in ("...->...", "i->i", "ij->ij", "i,->i"))


def _tensors(value: object) -> list[kobai.Tensor]:
    if isinstance(value, kobai.Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []


OWN = {
    name: f
    for name, f in {**FUNCTIONS, **METHODS}.items()
    if not {name, name.removeprefix("Tensor."), f"F.{name.rpartition('.')[2]}"} & VIEWS.keys() and name not in IN_PLACE
}


@pytest.mark.few(6)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OWN)
def test_results_have_memory_of_their_own_and_can_be_written_to(name):
    """Where an einsum is a transpose it is a view in PyTorch; elsewhere in Kobai too nothing is a view but VIEWS."""
    for data in _inputs():
        for keywords in ({}, {"training": False}) if name.startswith("F.") else ({},):
            for args in _arguments(kobai.tensor(data)):
                try:
                    result = OWN[name](*args, **keywords)
                except RecursionError:
                    raise
                except Exception:
                    continue  # no call
                given = _tensors(args)
                for y in _tensors(result):
                    assert y.array.flags.writeable, args
                    shared = name != "einsum" and any(np.shares_memory(y.array, t.array) for t in given)
                    assert not shared, args


# --- one computation in many forms ------------------------------------------------------------------------------------


def _outcome(function, args):
    """Its result, or None where it refuses."""
    try:
        result = function(*args)
        return None if result is NotImplemented else result
    except RecursionError:
        raise
    except Exception:
        return None


def _same(found: object, expected: object) -> bool:
    pairs = list(zip(_tensors(found), _tensors(expected), strict=True))
    return all(
        a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a.array, b.array, equal_nan=a.is_floating_point())
        for a, b in pairs
    )


RANDOM = (
    "bernoulli cauchy exponential geometric log_normal normal random uniform rand_like randn_like randint_like empty_like "
    "dropout multinomial"
).split()
OTHERWISE = "addmv addr float_power".split()  # no arguments above fit; float_power has results of float64
PAIRS = sorted(n for n in IN_PLACE if n.endswith("_") and n[:-1] in METHODS and n[7:-1] not in (*RANDOM, *OTHERWISE))


@pytest.mark.few(6)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PAIRS)
def test_in_place_forms_give_the_result_or_raise(name):
    """Never a tensor left as it was: where the result does not fit into it they raise, as float into integers."""
    changed, reference = METHODS[name], METHODS[name[:-1]]
    calls = 0
    for data in _inputs():
        for args in _arguments(kobai.tensor(data)):
            if not isinstance(args[0], kobai.Tensor):
                continue
            expected = _outcome(reference, args)
            own = (args[0].clone(), *args[1:])
            found = _outcome(changed, own)
            if found is None:
                continue
            calls += 1
            assert found is own[0], args
            assert expected is not None, f"{args}: the function refuses what its in-place form takes"
            wanted = expected.array.astype(own[0].dtype)
            if own[0].is_floating_point():  # a loop that changes memory may round once where two calls round twice
                np.testing.assert_allclose(own[0].array, wanted, rtol=1e-6)
            else:
                assert np.array_equal(own[0].array, wanted), args
    assert calls


SWITCHED = sorted(n for n, f in FUNCTIONS.items() if "inplace" in inspect.signature(f).parameters)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SWITCHED)
def test_the_switch_inplace_changes_the_tensor_or_raises(name):
    function = FUNCTIONS[name]
    needed = [0.5] * ("threshold" in name and 2)
    options = {"training": True, "p": 1.0} if "dropout" in name else {}
    for data in _inputs():
        for shape in (data.shape, (1, *data.shape)):
            x = kobai.tensor(data.reshape(shape))
            expected = _outcome(lambda *a: function(*a, **options), (x, *needed))
            try:
                found = function(x, *needed, inplace=True, **options)
            except RuntimeError as error:
                assert "cannot be kept" in str(error) or expected is None  # noqa: PT017
                continue
            except ValueError:
                assert expected is None
                continue
            assert found is x
            assert np.array_equal(x.array, expected.array.astype(x.dtype))


BOTH = sorted(
    set(METHODS) & {f"Tensor.{name}" for name in FUNCTIONS} - {f"Tensor.{name}" for name in (*RANDOM, "where")}
)
"""``x.where(condition, y)`` is ``where(condition, x, y)``."""


@pytest.mark.few(6)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BOTH)
def test_methods_agree_with_functions(name):
    function, method = FUNCTIONS[name[7:]], METHODS[name]
    if function is method:
        return
    for data in _inputs():
        for args in _arguments(kobai.tensor(data)):
            if not isinstance(args[0], kobai.Tensor):
                continue
            found, expected = _outcome(method, args), _outcome(function, args)
            if found is not None and expected is not None:
                assert _same(found, expected), args


OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "eq": "eq", "ne": "ne",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("symbol", OPERATORS)
def test_operators_agree_with_functions(symbol):
    function = FUNCTIONS[OPERATORS[symbol]]
    operator = METHODS[f"Tensor.__{symbol}__"]
    for data in _inputs():
        for args in _arguments(kobai.tensor(data)):
            if (
                len(args) != 2
                or not isinstance(args[0], kobai.Tensor)
                or not isinstance(args[1], (kobai.Tensor, int, float))
            ):
                continue
            expected, found = _outcome(function, args), _outcome(operator, args)
            assert (expected is None) == (found is None), args
            assert _same(found, expected), args


OUT = sorted(n for n, f in FUNCTIONS.items() if "out" in inspect.signature(f).parameters)


@pytest.mark.few(6)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OUT)
def test_out_holds_the_result(name):
    function = FUNCTIONS[name]
    for data in _inputs():
        for args in _arguments(kobai.tensor(data)):
            expected = _outcome(function, args)
            if not isinstance(expected, kobai.Tensor):
                continue
            out = kobai.zeros_like(expected)
            assert function(*args, out=out) is out
            assert _same(out, expected), args
