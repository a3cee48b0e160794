"""Initialisers: their distribution, their seed, their names, their errors."""

import inspect
import math
import re

import numpy as np
import pytest

import kobai
from kobai.nn import init

OUT, IN = 300, 500


def drawn(fill, *args, shape=(OUT, IN), dtype=kobai.float32, **options):
    tensor = kobai.empty(*shape, dtype=dtype)
    assert fill(tensor, *args, generator=kobai.Generator().manual_seed(1), **options) is tensor
    return tensor.numpy().astype(np.float64)


def gain(name, a=None):
    return init.calculate_gain(name, a)


NORMAL = [
    (init.normal_, (), {"std": 0.3}, 0.3),
    (init.xavier_normal_, (), {}, math.sqrt(2 / (IN + OUT))),
    (init.xavier_normal_, (2.0,), {}, 2 * math.sqrt(2 / (IN + OUT))),
    (init.kaiming_normal_, (), {"nonlinearity": "relu"}, math.sqrt(2 / IN)),
    (init.kaiming_normal_, (), {"mode": "fan_out", "nonlinearity": "tanh"}, 5 / 3 / math.sqrt(OUT)),
    (init.kaiming_normal_, (0.2,), {}, math.sqrt(2 / 1.04 / IN)),
    (init.lecun_normal_, (), {}, 1 / math.sqrt(IN)),
    (init.variance_scaling_, (3.0,), {}, math.sqrt(3 / IN)),
    (init.variance_scaling_, (3.0, "fan_out"), {}, math.sqrt(3 / OUT)),
]
UNIFORM = [
    (init.uniform_, (-0.25, 0.25), {}, 0.25),
    (init.xavier_uniform_, (), {}, math.sqrt(6 / (IN + OUT))),
    (init.kaiming_uniform_, (), {"nonlinearity": "relu"}, math.sqrt(6 / IN)),
    (init.kaiming_uniform_, (math.sqrt(5),), {}, 1 / math.sqrt(IN)),
    (init.lecun_uniform_, (), {}, math.sqrt(3 / IN)),
    (init.variance_scaling_, (2.0, "fan_avg", "uniform"), {}, math.sqrt(3 * 2 / ((IN + OUT) / 2))),
]


@pytest.mark.parametrize("dtype", [kobai.float32, kobai.float64, kobai.float16, kobai.bfloat16])
@pytest.mark.parametrize(("fill", "args", "options", "std"), NORMAL)
def test_normal(fill, args, options, std, dtype):
    x = drawn(fill, *args, dtype=dtype, **options)
    assert abs(x.mean()) < 5 * std / math.sqrt(x.size)
    assert x.std() == pytest.approx(std, rel=0.01)
    assert ((x / x.std()) ** 4).mean() == pytest.approx(3.0, rel=0.03)  # kurtosis of a normal distribution


@pytest.mark.parametrize(("fill", "args", "options", "limit"), UNIFORM)
def test_uniform(fill, args, options, limit):
    x = drawn(fill, *args, **options)
    assert np.abs(x).max() <= limit * (1 + 1e-6)
    assert np.abs(x).max() > 0.999 * limit
    assert x.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert abs(x.mean()) < 0.01 * limit


def test_fans_of_a_convolution():
    assert init._calculate_fan_in_and_fan_out(kobai.empty(8, 3, 5, 2)) == (30, 80)
    x = drawn(init.kaiming_normal_, shape=(64, 16, 5, 5), nonlinearity="relu")
    assert x.std() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    with pytest.raises(ValueError, match=r"at least 2 dimensions \(out, in\), got shape \(3,\)"):
        init.xavier_normal_(kobai.empty(3))


def truncated_moments(a, b):
    """Mean and standard deviation of a standard normal cut to [a, b], by integration."""
    z = np.linspace(a, b, 200001)
    w = np.exp(-0.5 * (z**2 - min(a * a, b * b)))
    mean = (z * w).sum() / w.sum()
    return mean, math.sqrt(((z - mean) ** 2 * w).sum() / w.sum())


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, -2, 2), (0, 0.02, -2, 2), (1, 2, 0, 1.5), (0, 1, 3, 9), (0, 1, -8, -5), (0, 5, -0.1, 0.1), (0, 1, 3, 1e6)],
)
def test_trunc_normal(mean, std, a, b):
    x = drawn(init.trunc_normal_, mean, std, a, b, dtype=kobai.float64)
    low, high = (a - mean) / std, (b - mean) / std
    expected_mean, expected_std = truncated_moments(max(low, -12), min(high, 12))
    assert x.min() >= a
    assert x.max() <= b
    assert x.mean() == pytest.approx(mean + std * expected_mean, abs=0.01 * std * expected_std)
    assert x.std() == pytest.approx(std * expected_std, rel=0.01)


def test_truncated_variance_scaling_keeps_its_variance():
    x = drawn(init.variance_scaling_, 2.0, "fan_in", "truncated_normal")
    std = math.sqrt(2 / IN)
    assert x.std() == pytest.approx(std, rel=0.01)
    assert np.abs(x).max() <= 2 * std / 0.879625


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30), (8, 3, 5)])
def test_orthogonal(shape):
    x = drawn(init.orthogonal_, shape=shape, gain=2.0, dtype=kobai.float64).reshape(shape[0], -1)
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    assert np.allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_orthogonal_is_uniform():
    """Without the sign correction the first entry of Q would always be of one sign."""
    g = kobai.Generator().manual_seed(0)
    signs = [init.orthogonal_(kobai.empty(3, 3), generator=g)[0, 0].item() > 0 for _ in range(200)]
    assert 70 < sum(signs) < 130


def test_orthogonal_of_nothing():
    assert init.orthogonal_(kobai.empty(0, 3)).shape == (0, 3)


def test_sparse():
    x = drawn(init.sparse_, 0.3, shape=(50, 40), std=0.1)
    assert ((x == 0).sum(axis=0) == 15).all()
    assert x[x != 0].std() == pytest.approx(0.1, rel=0.05)


def test_constants():
    assert init.constant_(kobai.empty(2, 2), 3.0).tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert init.zeros_(kobai.ones(2)).tolist() == [0.0, 0.0]
    assert init.ones_(kobai.empty(2)).tolist() == [1.0, 1.0]
    assert init.eye_(kobai.empty(2, 3)).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(("shape", "groups"), [((4, 2, 3, 3), 1), ((4, 2, 3), 2), ((2, 4, 1, 3, 3), 1)])
def test_dirac(shape, groups):
    x = init.dirac_(kobai.empty(*shape), groups).numpy()
    per_group = shape[0] // groups
    assert x.sum() == groups * min(per_group, shape[1])
    centre = tuple(k // 2 for k in shape[2:])
    for group in range(groups):
        for c in range(min(per_group, shape[1])):
            assert x[(group * per_group + c, c, *centre)] == 1.0


def test_parts_of_a_parameter_are_written_in_place():
    p = kobai.nn.Parameter(kobai.zeros(2, 4))
    init.ones_(p.data[:, 1::2])
    assert p.tolist() == [[0.0, 1.0, 0.0, 1.0]] * 2
    assert init.normal_(p) is p
    assert p.requires_grad
    assert p.is_leaf


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("linear", None, 1),
        ("conv2d", None, 1),
        ("sigmoid", None, 1),
        ("tanh", None, 5 / 3),
        ("relu", None, math.sqrt(2)),
        ("leaky_relu", None, math.sqrt(2 / (1 + 1e-4))),
        ("leaky_relu", 1, 1),
        ("selu", None, 0.75),
    ],
)
def test_gain(name, param, value):
    assert init.calculate_gain(name, param) == pytest.approx(value)


SPECS = [
    ("he", lambda t, g: init.kaiming_normal_(t, nonlinearity="relu", generator=g)),
    ("kaiming_normal", lambda t, g: init.kaiming_normal_(t, nonlinearity="relu", generator=g)),
    ("kaiming_uniform", lambda t, g: init.kaiming_uniform_(t, nonlinearity="relu", generator=g)),
    ("xavier", lambda t, g: init.xavier_normal_(t, generator=g)),
    ("Xavier_Normal", lambda t, g: init.xavier_normal_(t, generator=g)),
    ("xavier_uniform(2)", lambda t, g: init.xavier_uniform_(t, 2.0, generator=g)),
    ("lecun", lambda t, g: init.lecun_normal_(t, g)),
    ("lecun_normal()", lambda t, g: init.lecun_normal_(t, g)),
    ("lecun_uniform", lambda t, g: init.lecun_uniform_(t, g)),
    ("orthogonal", lambda t, g: init.orthogonal_(t, generator=g)),
    ("normal(0.01)", lambda t, g: init.normal_(t, 0, 0.01, g)),
    (" normal( 1e-2 ) ", lambda t, g: init.normal_(t, 0, 0.01, g)),
    ("trunc_normal(0.02)", lambda t, g: init.trunc_normal_(t, 0, 0.02, -0.04, 0.04, g)),
    ("uniform(-1, 1)", lambda t, g: init.uniform_(t, -1, 1, g)),
    ("constant(0.1)", lambda t, g: init.constant_(t, 0.1)),
    ("zeros", lambda t, g: init.zeros_(t)),
    ("ones", lambda t, g: init.ones_(t)),
    (init.xavier_normal_, lambda t, g: init.xavier_normal_(t, generator=g)),
]


@pytest.mark.parametrize(("spec", "direct"), SPECS)
def test_by_name(spec, direct):
    a, b = kobai.empty(6, 4), kobai.empty(6, 4)
    assert init.by_name(spec)(a, generator=kobai.Generator().manual_seed(3)) is a
    direct(b, kobai.Generator().manual_seed(3))
    assert a.tolist() == b.tolist()


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("hee", ValueError, "unknown initialiser 'hee'. Did you mean 'he'"),
        ("xaveir", ValueError, "Did you mean 'xavier'"),
        ("normal", ValueError, r"expected normal\(std\), got 'normal'"),
        ("normal(1,2)", ValueError, r"expected normal\(std\)"),
        ("uniform(1)", ValueError, r"expected uniform\(low, high\)"),
        ("zeros(1)", ValueError, r"expected zeros\(\), got 'zeros\(1\)"),
        ("normal(x)", ValueError, r"normal\(std\) takes numbers"),
        ("normal(0.1", ValueError, "expected a name such as 'he'"),
        ("", ValueError, "expected a name such as 'he'"),
        (3, TypeError, "got int"),
    ],
)
def test_by_name_nonsense(spec, error, message):
    with pytest.raises(error, match=message):
        init.by_name(spec)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: init.normal_(t, std=-1), "std >= 0"),
        (lambda t: init.uniform_(t, 1, 0), "a <= b"),
        (lambda t: init.trunc_normal_(t, a=1, b=1), "a < b"),
        (lambda t: init.trunc_normal_(t, std=0), "std > 0"),
        (lambda t: init.eye_(t[0]), "2-D"),
        (lambda t: init.dirac_(t), "3-, 4- or 5-D"),
        (lambda t: init.dirac_(kobai.empty(3, 2, 1), 2), "must divide into groups"),
        (lambda t: init.sparse_(t[0], 0.1), "2-D"),
        (lambda t: init.sparse_(t, 2), "between 0 and 1"),
        (lambda t: init.orthogonal_(t[0]), "at least 2"),
        (lambda t: init.variance_scaling_(t, -1.0), "scale >= 0"),
        (lambda t: init.variance_scaling_(t, 1.0, "fanin"), "Did you mean 'fan_in'"),
        (lambda t: init.variance_scaling_(t, 1.0, "fan_in", "unifrom"), "Did you mean 'uniform'"),
        (lambda t: init.kaiming_normal_(t, nonlinearity="rleu"), "Did you mean 'relu'"),
        (
            lambda t: init.kaiming_uniform_(t, mode="fan"),
            "^kaiming_uniform_: unknown mode 'fan'. Did you mean 'fan_in'",
        ),
        (lambda t: init.xavier_normal_(t[0]), "^xavier_normal_: expected a weight of at least 2 dimensions"),
        (lambda t: init.calculate_gain("leaky_relu", "x"), "negative slope"),
    ],
)
def test_nonsense(call, message):
    with pytest.raises(ValueError, match=message):
        call(kobai.empty(3, 4))


# --- every initialiser, as init.__all__ lists them --------------------------------------------------------------------

EVERY = [name for name in init.__all__ if name.endswith("_")]
ARGUMENTS = {"constant_": (0.5,), "sparse_": (0.3,)}  # of those that need some
SHAPES = {"dirac_": (4, 3, 3)}
DRAWING = [name for name in EVERY if "generator" in inspect.signature(getattr(init, name)).parameters]
NAMELESS = {"dirac_", "eye_", "sparse_", "variance_scaling_"}  # by_name has no name for them

every = pytest.mark.parametrize("name", EVERY)
drawing = pytest.mark.parametrize("name", DRAWING)


def fresh(name, dtype=kobai.float32):
    return kobai.full(SHAPES.get(name, (6, 4)), -9.0, dtype=dtype)


def fill(name, tensor, **options):
    return getattr(init, name)(tensor, *ARGUMENTS.get(name, ()), **options)


def seeded(name, seed=2):
    return {"generator": kobai.Generator().manual_seed(seed)} if name in DRAWING else {}


@every
@pytest.mark.parametrize("dtype", [kobai.bfloat16, kobai.float16, kobai.float32, kobai.float64])
def test_writes_all_of_the_tensor_on_every_backend(name, dtype, backend):
    def run(where):
        with kobai.using(where):
            tensor = fresh(name, dtype)
            assert fill(name, tensor, **seeded(name)) is tensor
            assert tensor.dtype == dtype
            return tensor.cpu().tolist()

    values = run(backend)
    assert values == run("numpy")
    assert np.isfinite(values).all()
    assert (np.array(values) != -9.0).all()


@every
def test_writes_into_a_view(name):
    around = kobai.zeros(*(2 * n for n in fresh(name).shape))
    view = around[tuple(slice(None, None, 2) for _ in around.shape)]
    fill(name, view, **seeded(name))
    expected = fill(name, fresh(name), **seeded(name))
    assert view.tolist() == expected.tolist()
    assert around.abs().sum().item() == pytest.approx(expected.abs().sum().item(), rel=1e-5)


@every
def test_the_tape_records_nothing_and_sees_the_change(name):
    weight = kobai.nn.Parameter(fresh(name))
    y = weight * weight
    assert fill(name, weight) is weight
    assert weight.is_leaf
    assert weight.requires_grad
    assert weight.grad_fn is None
    with pytest.raises(RuntimeError, match="in place"):
        y.sum().backward()


@drawing
def test_the_seed_decides(name):
    state = kobai.get_rng_state()
    first, again, other = (fill(name, fresh(name), **seeded(name, seed)).tolist() for seed in (2, 2, 3))
    assert first == again != other
    assert kobai.get_rng_state() == state, "drew from the default generator, though one was given"
    kobai.manual_seed(2)
    assert fill(name, fresh(name)).tolist() == first
    with pytest.raises(TypeError, match=r"kobai\.Generator"):
        fill(name, fresh(name), generator=np.random.default_rng())


@pytest.mark.parametrize("name", init._BY_NAME)
def test_each_name_is_documented_and_fills(name):
    takes = [n for n in re.split(r"[\[\], ]+", init._BY_NAME[name][1]) if n]
    spec = f"{name}({', '.join(str(0.25 * (i + 1)) for i in range(len(takes)))})"
    first, again = (init.by_name(spec)(fresh(name), **seeded("normal_")).tolist() for _ in range(2))
    assert first == again
    assert (np.array(first) != -9.0).all()
    assert f"``{name}" in init.by_name.__doc__, "the docstring of by_name does not list it"


def test_no_initialiser_is_forgotten():
    """One that is not exported, or that has no name. Its distribution is examined above, or by the example that it needs."""
    public = {
        n for n, f in vars(init).items() if inspect.isfunction(f) and f.__module__ == init.__name__ and n[0] != "_"
    }
    assert public - {*init._OLDER.split()} == {*init.__all__}
    assert all(">>>" in getattr(init, name).__doc__ for name in EVERY)
    assert {name.rstrip("_") for name in EVERY if name not in NAMELESS} <= {*init._BY_NAME}
