"""``vmap``: dimensions in and out, nesting, what it refuses, random numbers, and gradients across its border."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai import nn
from kobai.func import functional_call, grad, grad_and_value, stack_module_state, vmap


def close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


# --- dimensions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("out", [0, 1, -1])
def test_in_and_out_dims(dim, out):
    x = kobai.randn(2, 3, 4)
    y = vmap(lambda row: row.sin() * 2, in_dims=dim, out_dims=out)(x)
    close(y, (x.sin() * 2).movedim(dim, out))


def test_structures_of_arguments_and_results():
    x, w = kobai.randn(5, 3), kobai.randn(3, 5)

    def f(pair, options):
        a, (b,) = pair
        return {"sum": a + b, "product": (a * options["scale"], b.sum())}

    y = vmap(f, in_dims=((0, [1]), {"scale": None}), out_dims={"sum": 1, "product": (0, 0)})((x, [w]), {"scale": 2.0})
    close(y["sum"], x.T + w)
    close(y["product"][0], 2 * x)
    close(y["product"][1], w.sum(0))


def test_keywords_are_taken_along_the_first_dimension():
    x, b = kobai.randn(4, 3), kobai.randn(4)
    close(vmap(lambda x, b: x + b)(x, b=b), x + b[:, None])


def test_a_result_that_is_the_same_for_all_is_repeated_or_given_once():
    x, c = kobai.randn(4, 3), kobai.randn(2)
    assert vmap(lambda x: c)(x).shape == (4, 2)
    assert vmap(lambda x: c * 2, out_dims=None)(x).shape == (2,)
    assert kobai.equal(vmap(lambda x: (x, c), out_dims=(0, None))(x)[1], c)
    with pytest.raises(ValueError, match="out_dims is None for a result that differs"):
        vmap(lambda x: x, out_dims=None)(x)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 100])
def test_chunks(chunk_size):
    x, y = kobai.randn(7, 3), kobai.randn(4, 7)
    f = lambda a, b: (a.sum() * b, a.exp())  # noqa: E731
    found = vmap(f, in_dims=(0, 1), out_dims=(1, 0), chunk_size=chunk_size)(x, y)
    for a, b in zip(found, vmap(f, in_dims=(0, 1), out_dims=(1, 0))(x, y), strict=True):
        close(a, b)


def test_nesting_and_one_number_of_samples_twice():
    a, b = kobai.randn(3, 4), kobai.randn(3, 4)
    distances = vmap(vmap(lambda p, q: (p - q).pow(2).sum(), in_dims=(None, 0)), in_dims=(0, None))(a, b)
    close(distances, (a[:, None] - b).pow(2).sum(-1))
    x = kobai.randn(2, 3, 4)
    close(vmap(vmap(vmap(kobai.sin)))(x), x.sin())
    close(vmap(lambda row: vmap(lambda e: e * row.sum())(row))(a), a * a.sum(1, keepdim=True))
    close(vmap(lambda row: vmap(lambda other: row @ other)(b))(a), a @ b.T)


def test_no_samples():
    assert vmap(lambda x: (x @ x).exp())(kobai.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: vmap(kobai.sin, in_dims=2)(x), "names dimension 2 of a tensor of shape"),
        (lambda x: vmap(kobai.add)(x, kobai.ones(5)), "expected dimensions of one size, got 4, 5"),
        (lambda x: vmap(kobai.add)(x, 1.0), "of a value of type float"),
        (lambda x: vmap(kobai.add, in_dims=(0,))(x, x), "structure of what they are for"),
        (lambda x: vmap(kobai.sin, in_dims=None)(x), "expected in_dims to be an integer or a tuple"),
        (lambda x: vmap(kobai.sin, in_dims=(None,))(x), "at least one tensor, got None for all"),
        (lambda x: vmap(lambda x: 3)(x), "return tensors only, got a int"),
        (lambda x: vmap(lambda x: x, out_dims=(0, 0))(x), "structure of what they are for"),
        (lambda x: vmap(lambda x: x)(), "at least one positional argument"),
        (lambda x: vmap(lambda x: x, chunk_size=0)(x), "chunk_size"),
    ],
)
def test_errors_of_dimensions(call, message):
    with pytest.raises(ValueError, match=message):
        call(kobai.randn(4, 3))


# --- what depends on values, and what changes in place ----------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x * float(x[0]),
        lambda x: kobai.tensor(x.numpy()),
        lambda x: kobai.tensor(x.tolist()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
    ],
)
def test_a_value_of_one_sample_cannot_be_asked_for(function):
    with pytest.raises(RuntimeError, match="vmap: "):
        vmap(function)(kobai.tensor([[1.0, -2.0], [3.0, 4.0]]))


def test_what_is_the_same_for_all_samples_can_be_asked_for():
    w = kobai.tensor([1.0, 2.0])
    close(vmap(lambda x: x * w.sum().item() if w[0] > 0 else x)(kobai.ones(3)), kobai.full((3,), 3.0))


def test_changes_in_place():
    x, w = kobai.randn(3, 4), kobai.zeros(4)

    def f(x):
        y = x.clone()
        y[1:] += 1
        y[0] = x.sum()
        y.mul_(2).clamp_(min=0)
        made = x.new_zeros(4)
        made[2] = x[0]
        return y, made

    y, made = vmap(f)(x)
    expected = x + 1
    expected[:, 0] = x.sum(1)
    close(y, (2 * expected).clamp(min=0))
    close(made, kobai.stack([x[:, 0] if i == 2 else kobai.zeros(3) for i in range(4)], 1))
    for change in (lambda x: w.add_(x), lambda x: w.copy_(x), lambda x: w[:1].fill_(x[0])):
        with pytest.raises(RuntimeError, match=r"vmap: .*same for all"):
            vmap(change)(x)
    assert not w.any()


def test_a_change_in_place_reaches_the_tensor_outside_and_its_version():
    x = kobai.ones(3, 2)
    vmap(lambda row: row.mul_(3))(x)
    assert kobai.equal(x, kobai.full((3, 2), 3.0))
    w = kobai.ones(3, 2, requires_grad=True) * 1
    y = (w * w).sum()
    with kobai.no_grad():
        vmap(lambda row: row.add_(1))(w)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


# --- indices ----------------------------------------------------------------------------------------------------------

ROWS, COLUMNS = [[0, 2], [1, 1], [3, 0]], [[1, 0], [2, 2], [0, 1]]


@pytest.mark.parametrize("given", ["x", "i", "both"])
@pytest.mark.parametrize(
    "read",
    [
        lambda x, i, j: x[i],
        lambda x, i, j: x[:, i % 3],
        lambda x, i, j: x[..., i],
        lambda x, i, j: x[i, j],
        lambda x, i, j: x[i, :, j],
        lambda x, i, j: x[1, :, j],
        lambda x, i, j: x[None, i, 1:],
        lambda x, i, j: x[:, j, None, i],
        lambda x, i, j: x[i[:, None], j],
        lambda x, i, j: x[i[0], j[1]] if i.ndim else x,
        lambda x, i, j: kobai.gather(x, 1, (i[:, None, None] % 3).expand(2, 2, 4)),
        lambda x, i, j: x.index_select(2, i),
        lambda x, i, j: kobai.take_along_dim(x, i.reshape(2, 1, 1), 0),
        lambda x, i, j: x.index_add(0, i, x[:2]),
        lambda x, i, j: x.scatter_add(2, i.reshape(1, 1, 2), x[:1, :1, :2]),
        lambda x, i, j: kobai.index_put(x, (i, j), kobai.ones(4)),
    ],
)
def test_reads_and_writes_at_indices(read, given):
    x, i, j = kobai.randn(3, 4, 3, 4), kobai.tensor(ROWS), kobai.tensor(COLUMNS)
    dims = {"x": (0, None, None), "i": (None, 0, 0), "both": (0, 0, 0)}[given]
    args = [a if d == 0 else a[0] for a, d in zip((x, i, j), dims, strict=True)]
    found = vmap(read, in_dims=dims)(*args)
    for b in range(3):
        close(found[b], read(*(a if d is None else a[b] for a, d in zip(args, dims, strict=True))))


def test_writes_of_slices_by_masks_and_at_indices():
    x, i, v = kobai.randn(3, 4, 3), kobai.tensor(ROWS), kobai.randn(3, 2)

    def f(x, i, v):
        y = x.clone()
        y[i, 1] = v
        y[:, 2] = v[0]
        y[x > 1] = 0.0
        y[3] = y[3].where(v[0] > 0, v[1])
        return y

    found = vmap(f)(x, i, v)
    for b in range(3):
        close(found[b], f(x[b], i[b], v[b]))


# --- random numbers ---------------------------------------------------------------------------------------------------

DRAWS = {
    "rand": lambda x: kobai.rand(5),
    "rand_like": kobai.rand_like,
    "randn": lambda x: kobai.randn(5),
    "randint": lambda x: kobai.randint(0, 1000, (5,)),
    "randperm": lambda x: kobai.randperm(30),
    "dropout": lambda x: F.dropout(x.expand(40)),
    "dropout of what is shared": lambda x: F.dropout(kobai.ones(40)),
    "alpha_dropout": lambda x: F.alpha_dropout(x.expand(40), training=True),
    "feature dropout": lambda x: F.dropout1d(x.expand(40, 2)),
    "rrelu": lambda x: F.rrelu(-x.expand(40), training=True),
    "bernoulli": lambda x: kobai.bernoulli(x.expand(40) / 2),
    "normal_": lambda x: x.expand(5).clone().normal_(),
    "uniform_": lambda x: x.new_zeros(5).uniform_(),
    "multinomial": lambda x: kobai.multinomial(x.expand(40), 10),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x.expand(5)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_randomness(draw):
    x = kobai.ones(3, 1)
    with pytest.raises(RuntimeError, match="random function was called"):
        vmap(draw)(x)
    for randomness, alike in (("same", True), ("different", False)):
        kobai.manual_seed(3)
        y = vmap(draw, randomness=randomness)(x)
        assert kobai.equal(y[0], y[1]) is alike
        assert kobai.equal(y[1], y[2]) is alike
        kobai.manual_seed(3)
        assert kobai.equal(y, vmap(draw, randomness=randomness)(x))
    with pytest.raises(RuntimeError, match="randomness to be one of"):
        vmap(draw, randomness="some")


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
@pytest.mark.parametrize("draw", [lambda x: kobai.rand(2), lambda x: F.dropout(x.expand(64))])
def test_randomness_of_nested_samples(outer, inner, draw):
    y = vmap(vmap(draw, randomness=inner), randomness=outer)(kobai.ones(3, 4, 1))
    assert kobai.equal(y[0], y[1]) is (outer == "same")
    assert kobai.equal(y[:, 0], y[:, 1]) is (inner == "same")


def test_random_numbers_outside_are_those_of_before():
    kobai.manual_seed(1)
    a = kobai.rand(3), F.dropout(kobai.ones(9))
    vmap(lambda x: x)(kobai.ones(2))
    kobai.manual_seed(1)
    assert all(map(kobai.equal, a, (kobai.rand(3), F.dropout(kobai.ones(9)))))


# --- gradients --------------------------------------------------------------------------------------------------------


def test_gradients_pass_the_border():
    x, w, c = (kobai.randn(*shape, dtype=kobai.float64) for shape in ((5, 4), (4,), (4,)))
    for t in (x, w, c):
        t.requires_grad_()
    y = vmap(lambda x, w: ((x * w).sin() + (c * w).exp()).sum() * (c * 2).sum(), in_dims=(0, None))(x, w)
    weights = kobai.randn(5, dtype=kobai.float64)
    (y * weights).sum().backward()
    found = [t.grad for t in (x, w, c)]
    loss = ((((x * w).sin() + (c * w).exp()).sum(1) * (c * 2).sum()) * weights).sum()
    for a, b in zip(found, kobai.autograd.grad(loss, (x, w, c)), strict=True):
        close(a, b, 1e-12)


def test_gradient_of_a_result_that_is_the_same_for_all():
    w = kobai.randn(3, dtype=kobai.float64, requires_grad=True)
    for dims, factor in ((0, 4), (None, 1)):
        (g,) = kobai.autograd.grad(vmap(lambda x: w * w, out_dims=dims)(kobai.ones(4)).sum(), w)
        close(g, 2 * w * factor, 1e-12)


def test_backward_after_the_vmap_has_ended_and_inside_another():
    x, w = kobai.randn(3, 4, 2), kobai.randn(2, requires_grad=True)
    f = lambda x: (x * w).sin().sum()  # noqa: E731
    vmap(vmap(f))(x).sum().backward()
    close(w.grad, (x * (x * w).cos()).sum((0, 1)).detach(), 1e-5)
    per_row = vmap(grad(lambda w, rows: vmap(lambda x: (x * w).sin().sum())(rows).sum()), in_dims=(None, 0))(w, x)
    close(per_row, (x * (x * w).cos()).sum(1).detach(), 1e-5)


def test_grad_and_value():
    x, y = kobai.randn(3), kobai.randn(3)
    f = lambda a, b: ((a["w"] * b).sum(), a["w"] + b)  # noqa: E731
    (ga, gb), (value, aux) = grad_and_value(f, argnums=(0, 1), has_aux=True)({"w": x}, y)
    close(ga["w"], y)
    close(gb, x)
    close(value, (x * y).sum())
    close(aux, x + y)
    assert not any(t.requires_grad for t in (ga["w"], value, aux, x))
    g, aux = grad(f, argnums=-1, has_aux=True)({"w": x}, y)
    close(g, x)
    assert not grad(lambda x: kobai.zeros(()))(x).any()
    for wrong, message in (
        (lambda: grad(lambda x: x)(x), "without dimensions"),
        (lambda: grad(lambda x: 3)(x), "return Tensors"),
        (lambda: grad(kobai.sum, argnums=1)(x), "argnums"),
        (lambda: grad(kobai.dot, argnums=(0, 0))(x, y), "different arguments"),
        (lambda: grad(kobai.sum, has_aux=True)(x), "pair"),
    ):
        with pytest.raises(RuntimeError, match=message):
            wrong()


def slopes(f, x):
    """f′(x) at a fresh leaf, on the tape."""
    (g,) = kobai.autograd.grad(f(x), x, create_graph=True)
    return g


def test_second_derivatives_across_the_border():
    x, w = kobai.randn(5, 3, dtype=kobai.float64), kobai.randn(3, dtype=kobai.float64)
    x.requires_grad_(), w.requires_grad_()
    found = []
    for total in (
        vmap(lambda row: (row * w).tanh().sum() * w.exp().sum())(x).sum(),
        ((x * w).tanh() * w.exp().sum()).sum(),
    ):
        gx, gw = kobai.autograd.grad(total, (x, w), create_graph=True)
        found.append(kobai.autograd.grad((gx**2).sum() + (gw**3).sum(), (x, w)))
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-10)
    (g,) = kobai.autograd.grad(vmap(lambda row: w * w, out_dims=None)(x).sum(), w, create_graph=True)
    close(kobai.autograd.grad((g**2).sum(), w)[0], 8 * w, 1e-12)


def test_second_derivatives_of_every_sample():
    x = kobai.randn(4, 3, dtype=kobai.float64)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1)).double()

    def laplacian(row):
        point = row.clone().requires_grad_() if not row.requires_grad else row
        g = slopes(lambda p: model(p)[0], point)
        return sum(kobai.autograd.grad(g[i], point, retain_graph=True)[0][i] for i in range(3))

    close(vmap(laplacian)(x), kobai.stack([laplacian(row) for row in x]), 1e-9)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)
        self.line = nn.Linear(4 * 9, 5)

    def forward(self, x):
        return self.line(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


MODELS = {
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 5)),
    "cnn": Small,
    "attention": lambda: nn.Sequential(
        nn.Flatten(1, 2),
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        nn.Flatten(),
        nn.Linear(64, 5),
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradients_per_sample_of_a_model(model):
    model = model().double()
    params = {name: p.detach() for name, p in model.named_parameters()}
    x, y = kobai.randn(6, 1, 8, 8, dtype=kobai.float64), kobai.tensor([0, 4, 1, 2, 3, 0])

    def loss(params, x, y):
        return F.cross_entropy(functional_call(model, params, (x[None],)), y[None])

    found, losses = vmap(grad_and_value(loss), in_dims=(None, 0, 0))(params, x, y)
    for b in range(6):
        wanted, value = grad_and_value(loss)(params, x[b], y[b])
        close(losses[b], value, 1e-10)
        for name, g in wanted.items():
            close(found[name][b], g, 1e-9)


def test_an_ensemble():
    models = [nn.Linear(3, 2) for _ in range(4)]
    params, buffers = stack_module_state(models)
    assert params["weight"].shape == (4, 2, 3)
    assert params["weight"].requires_grad
    x = kobai.randn(5, 3)
    y = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)), in_dims=(0, 0, None))(params, buffers, x)
    close(y, kobai.stack([model(x) for model in models]))
    y.square().sum().backward()
    for i, model in enumerate(models):
        model(x).square().sum().backward()
        close(params["weight"].grad[i], model.weight.grad, 1e-5)
    for wrong, message in (([], "at least one"), ([nn.Linear(2, 2), nn.ReLU()], "one class")):
        with pytest.raises(RuntimeError, match=message):
            stack_module_state(wrong)


def test_functions_written_by_hand():
    class Cube(kobai.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return dy * 3 * x**2

    x = kobai.randn(4, 3, requires_grad=True)
    vmap(Cube.apply)(x).sum().backward()
    close(x.grad, 3 * x**2)
    close(vmap(grad(lambda x: Cube.apply(x).sum()))(x), 3 * x**2)


def test_linear_algebra_and_the_rest_of_the_functions():
    a, b = kobai.randn(4, 3, 3) + 4 * kobai.eye(3), kobai.randn(4, 3)
    for function, args in {
        kobai.linalg.solve: (a, b),
        kobai.linalg.inv: (a,),
        kobai.linalg.det: (a,),
        kobai.linalg.eigvalsh: (a @ a.mT,),
        kobai.linalg.cholesky: (a @ a.mT,),
        kobai.linalg.norm: (b,),
        kobai.cov: (a,),
        kobai.cumsum: (b, 0),
        kobai.argmax: (b,),
        kobai.sort: (b,),
        kobai.topk: (b, 2),
        kobai.outer: (b, b),
        kobai.trapz: (b,),
        kobai.logsumexp: (b, 0),
        kobai.diag: (b,),
        kobai.tril: (a,),
        kobai.roll: (b, 1),
        kobai.unfold_copy if hasattr(kobai, "unfold_copy") else kobai.flip: (b, (0,)),
    }.items():
        dims = tuple(0 if isinstance(t, kobai.Tensor) else None for t in args)
        found = vmap(function, in_dims=dims)(*args)
        for i in range(4):
            wanted = function(*(t[i] if isinstance(t, kobai.Tensor) else t for t in args))
            pairs = [(found, wanted)] if isinstance(wanted, kobai.Tensor) else zip(found, wanted, strict=True)
            for f, w in pairs:
                close(f[i], w, 1e-4)


def test_what_has_no_rule_is_done_in_a_loop_and_says_so_once(monkeypatch):
    from kobai.autograd.batching import primitives

    monkeypatch.setattr(primitives, "_warned", set())
    x = kobai.randn(3, 4, requires_grad=True)
    mask = kobai.tensor([[True, False, False, True], [True, True, False, False], [False, True, False, True]])
    f = lambda x, mask: x[mask].sin()  # noqa: E731
    with pytest.warns(UserWarning, match="masked has no batching rule") as told:
        y = vmap(f)(x, mask)
    assert told[0].filename == __file__
    close(y, x[mask].sin().reshape(3, 2))
    y.sum().backward()
    close(x.grad, mask * x.cos())
    close(vmap(f)(x, mask), y)


def test_an_escaped_tensor_is_named():
    kept = []
    vmap(lambda x: kept.append(x) or x)(kobai.ones(3))
    with pytest.raises(RuntimeError, match="escaped"):
        vmap(lambda x: x + kept[0])(kobai.ones(4))


def test_a_captured_step_with_gradients_per_sample():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, x, y):
        return F.cross_entropy(functional_call(model, params, (x[None],)), y[None])

    def step(x, y):
        return vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)

    captured, y = kobai.capture(step), kobai.tensor([0, 1, 2, 3, 4, 0])
    for _ in range(4):
        x = kobai.randn(6, 1, 8, 8)
        assert all(kobai.equal(a, b) for a, b in zip(captured(x, y).values(), step(x, y).values(), strict=True))


def test_searches_in_rows_that_all_share_or_not():
    rows, x = kobai.randn(4, 6).sort(1).values, kobai.randn(4, 3)
    close(vmap(kobai.searchsorted)(rows, x), kobai.searchsorted(rows, x))
    close(vmap(lambda a: kobai.bucketize(a, rows[0]))(x), kobai.bucketize(x, rows[0]))
    close(
        vmap(lambda row: kobai.searchsorted(row, x[0]))(rows),
        kobai.stack([kobai.searchsorted(row, x[0]) for row in rows]),
    )
    counts = kobai.stack([kobai.histc(row, 5, -2, 2) for row in x])
    close(vmap(lambda a: kobai.histc(a, 5, -2, 2))(x), counts)


def test_threads_that_use_vmap_at_once():
    def work(first):
        for n in range(first, first + 30):
            x = kobai.randn(n, 2)
            close(vmap(lambda a: (a * kobai.ones(2)).sum())(x), x.sum(1), 1e-5)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, (100, 110, 120, 130)))
