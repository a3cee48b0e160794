"""PyTorch as the truth for the core: promotion, printing, in-place rules, DLPack, files."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

import kobai

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

DTYPES = "bool uint8 int8 int16 int32 int64 bfloat16 float16 float32 float64".split()
NUMBERS = [True, 1, 1.5]
OPERATORS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "maximum": lambda a, b: (kobai if isinstance(a, kobai.Tensor) else torch).maximum(a, b),
    "where": lambda a, b: (kobai if isinstance(a, kobai.Tensor) else torch).where(a > 0, a, b),
    "lt": lambda a, b: a < b,
}
OPERANDS = [(dtype, shape) for dtype in DTYPES for shape in ((2,), ())]


def both(operand):
    if not isinstance(operand, tuple):
        return operand, operand
    dtype, shape = operand
    return kobai.ones(shape, dtype=getattr(kobai, dtype)), torch.ones(shape, dtype=getattr(torch, dtype))


def dtype_of(f, a, b) -> str:
    return str(f(a, b).dtype).rpartition(".")[2]


@pytest.mark.parametrize("name", OPERATORS)
def test_promotion_of_every_pair(name):
    """All dtypes, with and without dimensions, with each other and with Python numbers on either side."""
    f = OPERATORS[name]
    wrong = []
    for one, other in itertools.chain(
        itertools.product(OPERANDS, OPERANDS),
        itertools.product(OPERANDS, NUMBERS),
        itertools.product(NUMBERS, OPERANDS),
    ):
        if name in ("maximum", "where") and (not isinstance(one, tuple) or not isinstance(other, tuple)):
            continue
        bools = all(
            (not isinstance(x, tuple) and x is True) or (isinstance(x, tuple) and x[0] == "bool") for x in (one, other)
        )
        if bools and name in ("pow", "floordiv", "mod"):
            continue  # PyTorch refuses most of these
        (a, c), (b, d) = both(one), both(other)
        ours, theirs = dtype_of(f, a, b), dtype_of(f, c, d)
        if ours != theirs:
            wrong.append((one, other, ours, theirs))
    assert not wrong, wrong[:5]


def test_result_type():
    for one, other in itertools.product(OPERANDS, OPERANDS + NUMBERS):
        (a, c), (b, d) = both(one), both(other)
        assert str(kobai.result_type(a, b)) == str(torch.result_type(c, d)).replace("torch", "kobai"), (one, other)


# --- printing ---------------------------------------------------------------------------------------------------------


def texts(array: np.ndarray) -> tuple[str, str]:
    return repr(kobai.from_numpy(array)), repr(torch.from_numpy(array)).replace("torch.", "kobai.")


def test_repr_of_many_tensors():
    rng = np.random.default_rng(0)
    shapes = [
        (),
        (1,),
        (3,),
        (30,),
        (2, 3),
        (1, 1),
        (3, 40),
        (2, 2, 3),
        (1, 2, 2, 2),
        (0,),
        (0, 3),
        (2000,),
        (40, 50),
        (11, 10, 10),
    ]
    makers = [
        lambda s: rng.normal(size=s),
        lambda s: rng.normal(size=s).astype(np.float32),
        lambda s: rng.normal(size=s).astype(np.float16),
        lambda s: np.round(rng.normal(size=s) * 10),
        lambda s: np.round(rng.normal(size=s) * 1e6),
        lambda s: rng.normal(size=s) * 1e10,
        lambda s: rng.normal(size=s) * 1e-6,
        lambda s: np.exp(8 * rng.normal(size=s)).astype(np.float32),
        lambda s: rng.choice([0.0, 1.5, np.nan, np.inf, -np.inf], s),
        lambda s: rng.choice([0.0, 2.0, np.nan, np.inf], s),
        lambda s: np.zeros(s),
        lambda s: np.full(s, np.nan),
        lambda s: rng.integers(-5, 5, s),
        lambda s: rng.integers(-(10**12), 10**12, s),
        lambda s: rng.integers(0, 255, s).astype(np.uint8),
        lambda s: rng.random(s) > 0.5,
    ]
    for shape, make in itertools.product(shapes, makers):
        ours, theirs = texts(np.asarray(make(shape)))
        assert ours == theirs


def test_format_of_numbers():
    for value in (1.5, 3, True):
        assert f"{kobai.tensor(value)}" == f"{torch.tensor(value)}"
    assert f"{kobai.tensor(0.123456):>10.3f}" == f"{torch.tensor(0.123456):>10.3f}"


# --- programs of in-place changes and views ---------------------------------------------------------------------------


def program(lib, rng: np.random.Generator, steps: int):
    """A random program over views and in-place changes; the gradient of its input, or the kind of error it ends in."""
    x = lib.tensor(rng.normal(size=(4, 3)).tolist(), dtype=lib.float64, requires_grad=True)
    w = lib.tensor(rng.normal(size=3).tolist(), dtype=lib.float64, requires_grad=True)
    pool = [x * 1.5, x + w]
    try:
        for _ in range(steps):
            t = pool[rng.integers(len(pool))]
            kind = rng.integers(9)
            if kind == 0:
                pool.append(t[rng.integers(4) % max(len(t), 1) :] if t.ndim else t)
            elif kind == 1 and t.ndim == 2:
                pool.append(t.t())
            elif kind == 2:
                pool.append(t.reshape(-1))
            elif kind == 3 and t.ndim:
                pool.append(t[0])
            elif kind == 4:
                t.mul_(1.25)
            elif kind == 5:
                t.add_(w[0])
            elif kind == 6 and t.ndim and len(t):
                t[0] = w[1] * 2
            elif kind == 7:
                pool.append(t.exp().clamp(max=3.0))
            elif kind == 8:
                t.detach().mul_(0.5) if rng.random() < 0.1 else t.sub_(t.mean())
        sum((p * p).sum() * 0.1 for p in pool).backward()
    except RuntimeError:
        return "error"
    return np.concatenate([np.array(g.tolist()).ravel() for g in (x.grad, w.grad)])


@pytest.mark.parametrize("steps", [3, 6, 12])
def test_random_programs_of_views_and_in_place_changes(steps):
    outcomes = []
    for seed in range(60):
        ours, theirs = (program(lib, np.random.default_rng(seed), steps) for lib in (kobai, torch))
        if isinstance(ours, str) or isinstance(theirs, str):
            assert isinstance(ours, str) == isinstance(theirs, str), seed
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=str(seed))
            outcomes.append(seed)
    assert len(outcomes) > 5


ERRORS = {
    "in place on a leaf": lambda lib, x: x.add_(1),
    "in place on a view of a leaf": lambda lib, x: x[0].mul_(2),
    "output needed, changed": lambda lib, x: (lambda y: (y.mul_(2), y.sum().backward()))(x.exp()),
    "input needed, changed": lambda lib, x: (lambda y: (y * y, y.mul_(2))[0].sum().backward())(x * 1),
    "input not needed, changed": lambda lib, x: (lambda y: (y + 1, y.mul_(2))[0].sum().backward())(x * 1),
    "twice": lambda lib, x: (lambda y: (y.backward(), y.backward()))((x * x).sum()),
    "twice, nothing kept": lambda lib, x: (lambda y: (y.backward(), y.backward()))((x + 1).sum()),
    "not one element": lambda lib, x: (x * 2).backward(),
    "one element of two dimensions": lambda lib, x: (x[:1] * 2).backward(),
    "constant": lambda lib, x: x.detach().sum().backward(),
    "unused": lambda lib, x: lib.autograd.grad((x * 2).sum(), [lib.ones(1, requires_grad=True)]),
    "grad, then on": lambda lib, x: (lambda h: h.backward(lib.autograd.grad((h * h).sum(), h)[0]))(x * x),
    "integers": lambda lib, x: lib.arange(3).requires_grad_(),
    "numpy of a gradient": lambda lib, x: x.numpy(),
    "float into integer": lambda lib, x: lib.arange(3).add_(0.5),
    "wrong gradient shape": lambda lib, x: (x * 2).backward(lib.ones(5)),
    "detach of a view": lambda lib, x: (x * 1)[0].detach_(),
    "switching off a non-leaf": lambda lib, x: (x * 1).requires_grad_(False),
    "expanded": lambda lib, x: lib.ones(1).expand(3).add_(1),
    "broadcasting": lambda lib, x: x + lib.ones(5),
    "in place grows": lambda lib, x: lib.ones(2).add_(lib.ones(3, 2)),
    "bool of many": lambda lib, x: bool(lib.ones(2)),
    "bool of none": lambda lib, x: bool(lib.ones(0)),
    "item of many": lambda lib, x: lib.ones(2).item(),
    "format of many": lambda lib, x: f"{lib.ones(2):.3f}",
    "size out of range": lambda lib, x: lib.ones(2).size(1),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_where_pytorch_has_errors(name):
    kinds = []
    for lib in (kobai, torch):
        x = lib.tensor([1.0, 2.0, 3.0], requires_grad=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ERRORS[name](lib, x)
            kinds.append(None)
        except Exception as error:
            kinds.append(type(error).__name__)
    assert kinds[0] == kinds[1]


# --- exchange ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bfloat16"])  # NumPy refuses to hand it out
def test_dlpack_both_ways_shares_memory(dtype):
    ours = kobai.zeros(2, 3, dtype=getattr(kobai, dtype))
    theirs = torch.from_dlpack(ours)
    theirs[0, 1] = 1
    assert ours.tolist() == theirs.tolist()
    back = kobai.from_dlpack(theirs.t())
    assert back.dtype == getattr(kobai, dtype)
    back[0, 0] = 1
    assert theirs[0, 0] == 1
    assert back.tolist() == theirs.t().tolist()
    assert torch.as_tensor(ours.numpy()).tolist() == kobai.tensor(theirs.numpy()).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_exchanged_both_ways(dtype, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    theirs = {
        "a.weight": (torch.randn(2, 3) * 3).to(getattr(torch, dtype)),
        "n": torch.tensor(1).to(getattr(torch, dtype)),
    }
    safetensors.save_file(theirs, tmp_path / "theirs")
    ours = kobai.load(tmp_path / "theirs")
    for name, tensor in theirs.items():
        assert ours[name].shape == tuple(tensor.shape)
        assert ours[name].tolist() == tensor.tolist()
    kobai.save(ours, tmp_path / "ours")
    back = safetensors.load_file(tmp_path / "ours")
    assert all(back[name].tolist() == ours[name].tolist() for name in ours)
    assert all(back[name].dtype == theirs[name].dtype for name in theirs)


def test_a_pytorch_pickle_is_refused_with_the_way_out(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "p")
    with pytest.raises(kobai.errors.CheckpointError, match=r"safetensors.torch.save_file"):
        kobai.load(tmp_path / "p")


# --- values -----------------------------------------------------------------------------------------------------------


def test_arange_linspace_and_quotients():
    for arguments in ((5,), (1, 4), (0, 1, 0.1), (5, -3, -2), (0.5, 3.2, 0.7), (-1, 1, 0.25), (1, 2, 0.3)):
        assert kobai.arange(*arguments).tolist() == torch.arange(*arguments).tolist()
    for arguments in ((0, 1, 7), (3, -3, 4), (1, 1, 3), (0, 5, 1)):
        np.testing.assert_allclose(
            kobai.linspace(*arguments).array, torch.linspace(*arguments).numpy(), rtol=1e-6, atol=1e-7
        )
    a, b = [7, -7, 7, -7, 2**40 + 1, 0], [2, 2, -2, -2, -3, 5]
    for mode in ("floor", "trunc", None):
        ours = kobai.div(kobai.tensor(a), kobai.tensor(b), rounding_mode=mode)
        theirs = torch.div(torch.tensor(a), torch.tensor(b), rounding_mode=mode)
        assert ours.tolist() == theirs.tolist()
    for f in ("remainder", "fmod"):
        assert (
            getattr(kobai, f)(kobai.tensor(a), kobai.tensor(b)).tolist()
            == getattr(torch, f)(torch.tensor(a), torch.tensor(b)).tolist()
        )


@pytest.mark.parametrize("name", ["pow", "maximum", "minimum", "atan2", "remainder", "fmod", "div", "mul"])
def test_gradients_of_corners(name):
    values = [-2.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    grid = np.array(list(itertools.product(values, values)))
    results = []
    for lib in (kobai, torch):
        a, b = (lib.tensor(column.tolist(), dtype=lib.float64, requires_grad=True) for column in grid.T)
        y = getattr(lib, name)(a, b)
        y.backward(lib.ones_like(y))
        results.append([np.array(t.tolist()) for t in (y, a.grad, b.grad)])
    for part, left, right in zip(("value", "d/da", "d/db"), *results, strict=True):
        if (name, part) in (("fmod", "d/db"), ("remainder", "d/db")):
            continue
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-14, err_msg=part)


@pytest.mark.parametrize("equation", ["bhqd,bhkd->bhqk", "...ij,...jk->...ik", "ij,ij->", "abc,cd,bd->ad", "ijj->ij"])
def test_einsum(equation):
    rng = np.random.default_rng(0)
    left, _, _ = equation.partition("->")
    sizes = {c: n for n, c in enumerate("abcdhijkq", start=2)}
    arrays = [rng.normal(size=[sizes[c] for c in part.replace("...", "ab")]) for part in left.split(",")]
    results = []
    for lib in (kobai, torch):
        xs = [lib.tensor(a.tolist(), dtype=lib.float64, requires_grad=True) for a in arrays]
        y = lib.einsum(equation, *xs)
        (y * y).sum().backward()
        results.append([np.array(t.tolist()) for t in (y, *(x.grad for x in xs))])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
