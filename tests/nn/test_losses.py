"""Every loss: its formula, its reductions, its gradient, what it refuses."""

import copy
import inspect
import math
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F


def log_softmax(x):
    z = x - x.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cosine(a, b):
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def distance(a, b):
    return np.sqrt(((a - b + 1e-6) ** 2).sum(1))


def rng():
    return np.random.default_rng(0)


X, Y, Z = (rng().normal(size=(3, 4, 3)) + 0.05)[:, :, :]
P, Q = rng().uniform(0.1, 0.9, size=(2, 4, 3))
S = np.array([1.0, -1.0, 1.0, -1.0])
S2 = np.where(rng().random((4, 3)) < 0.5, -1.0, 1.0)
T = np.array([0, 2, 1, 2])
D = Q / Q.sum(1, keepdims=True)

# (layer, arguments, what it is of each element)
LABELS = np.array([[2, -1, 0], [1, 0, -1], [-1, 1, 2], [0, 2, 1]])
LOSSES = {
    "cross entropy": (nn.CrossEntropyLoss, (X, T), lambda x, t: -log_softmax(x)[np.arange(4), t]),
    "cross entropy of probabilities": (nn.CrossEntropyLoss, (X, D), lambda x, t: -(t * log_softmax(x)).sum(1)),
    "nll": (nn.NLLLoss, (log_softmax(X), T), lambda x, t: -x[np.arange(4), t]),
    "mse": (nn.MSELoss, (X, Y), lambda x, t: (x - t) ** 2),
    "l1": (nn.L1Loss, (X, Y), lambda x, t: abs(x - t)),
    "smooth l1": (
        lambda **k: nn.SmoothL1Loss(beta=0.5, **k),
        (X, Y),
        lambda x, t: np.where(abs(x - t) < 0.5, (x - t) ** 2, abs(x - t) - 0.25),
    ),
    "huber": (
        lambda **k: nn.HuberLoss(delta=0.5, **k),
        (X, Y),
        lambda x, t: np.where(abs(x - t) < 0.5, (x - t) ** 2 / 2, 0.5 * (abs(x - t) - 0.25)),
    ),
    "multi margin": (
        nn.MultiMarginLoss,
        (X, T),
        lambda x, t: (np.maximum(0, 1 - x[np.arange(4), t][:, None] + x).sum(1) - 1) / 3,
    ),
    "multi-label margin": (
        nn.MultiLabelMarginLoss,
        (X, LABELS),
        lambda x, t: np.array(
            [
                sum(max(0, 1 - r[k] + r[c]) for k in own for c in set(range(3)) - own) / 3
                for r, own in zip(x, ({2}, {0, 1}, set(), {0, 1, 2}), strict=True)
            ]
        ),
    ),
    "multi-label soft margin": (
        nn.MultiLabelSoftMarginLoss,
        (X, Q),
        lambda x, t: -(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))).mean(1),
    ),
    "triplet with distance": (
        lambda **k: nn.TripletMarginWithDistanceLoss(margin=0.5, **k),
        (X, Y, Z),
        lambda a, p, n: np.maximum(0, distance(a, p) - distance(a, n) + 0.5),
    ),
    "bce": (nn.BCELoss, (P, Q), lambda p, t: -(t * np.log(p) + (1 - t) * np.log(1 - p))),
    "bce with logits": (
        nn.BCEWithLogitsLoss,
        (X, Q),
        lambda x, t: -(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))),
    ),
    "kl": (nn.KLDivLoss, (log_softmax(X), D), lambda x, t: t * (np.log(t) - x)),
    "kl of logarithms": (
        lambda **k: nn.KLDivLoss(log_target=True, **k),
        (log_softmax(X), np.log(D)),
        lambda x, t: np.exp(t) * (t - x),
    ),
    "cosine": (
        lambda **k: nn.CosineEmbeddingLoss(0.1, **k),
        (X, Y, S),
        lambda a, b, t: np.where(t == 1, 1 - cosine(a, b), np.maximum(0, cosine(a, b) - 0.1)),
    ),
    "ranking": (
        lambda **k: nn.MarginRankingLoss(0.2, **k),
        (X, Y, S2),
        lambda a, b, t: np.maximum(0, -t * (a - b) + 0.2),
    ),
    "hinge": (
        lambda **k: nn.HingeEmbeddingLoss(0.7, **k),
        (P, S2),
        lambda x, t: np.where(t == 1, x, np.maximum(0, 0.7 - x)),
    ),
    "soft margin": (nn.SoftMarginLoss, (X, S2), lambda x, t: np.log1p(np.exp(-t * x))),
    "triplet": (
        lambda **k: nn.TripletMarginLoss(2.0, **k),
        (X, Y, Z),
        lambda a, p, n: np.maximum(0, distance(a, p) - distance(a, n) + 2.0),
    ),
    "triplet with swap": (
        lambda **k: nn.TripletMarginLoss(2.0, swap=True, **k),
        (X, Y, Z),
        lambda a, p, n: np.maximum(0, distance(a, p) - np.minimum(distance(a, n), distance(p, n)) + 2.0),
    ),
    "gaussian": (nn.GaussianNLLLoss, (X, Y, Q), lambda x, t, v: (np.log(v) + (x - t) ** 2 / v) / 2),
    "gaussian, full": (
        lambda **k: nn.GaussianNLLLoss(full=True, **k),
        (X, Y, Q[:, :1]),
        lambda x, t, v: (np.log(2 * math.pi * v) + (x - t) ** 2 / v) / 2,
    ),
    "poisson": (nn.PoissonNLLLoss, (X, 4 * Q), lambda x, t: np.exp(x) - t * x),
    "poisson, full": (
        lambda **k: nn.PoissonNLLLoss(False, True, **k),
        (P, 4 * Q),
        lambda x, t: x - t * np.log(x + 1e-8) + np.where(t > 1, t * np.log(t) - t + 0.5 * np.log(2 * math.pi * t), 0),
    ),
}
every = pytest.mark.parametrize("name", LOSSES)


@every
def test_formula_and_reductions(name):
    make, arrays, formula = LOSSES[name]
    arguments = [kobai.tensor(a) for a in arrays]
    expected = formula(*arrays)
    # cross entropy of probabilities divides by rows, of which there is one loss each
    for reduction, value in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        loss = make(reduction=reduction)(*arguments)
        assert loss.dtype == kobai.float64
        assert np.allclose(loss.numpy(), value, rtol=1e-9), reduction
    assert make()(*arguments).item() == pytest.approx(expected.mean())


@every
def test_gradcheck(name):
    make, arrays, _ = LOSSES[name]
    arguments = [kobai.tensor(a) for a in arrays]
    arguments[0].requires_grad_()
    for reduction in ("mean", "none"):
        assert kobai.autograd.gradcheck(make(reduction=reduction), tuple(arguments))


@every
def test_as_a_module(name):
    make, _, _ = LOSSES[name]
    loss = make(reduction="sum")
    assert repr(loss) == f"{type(loss).__name__}()"
    assert copy.deepcopy(loss).reduction == "sum"
    assert list(loss.state_dict()) == list(loss.parameters()) == []
    with pytest.raises(ValueError, match=f"{type(loss).__name__}: expected reduction to be one of .*, got 'men'"):
        make(reduction="men")


@every
def test_every_backend_computes_the_same(name, backend):
    make, arrays, _ = LOSSES[name]

    def run(where):
        with kobai.using(where):
            arguments = [kobai.tensor(a).to(kobai.zeros(1).device) for a in arrays]
            x = arguments[0].requires_grad_()
            loss = make()(*arguments)
            loss.backward()
            return loss.detach().cpu().item(), x.grad.cpu().numpy()

    (a, ga), (b, gb) = run(backend), run("numpy")
    assert a == pytest.approx(b)
    assert np.allclose(ga, gb)


ALIASES = {
    "BCELoss": F.binary_cross_entropy,
    "BCEWithLogitsLoss": F.binary_cross_entropy_with_logits,
    "CrossEntropyLoss": F.cross_entropy,
    "KLDivLoss": F.kl_div,
}
NAMED = {name.replace("_", ""): getattr(F, name) for name in dir(F)}
UNUSUAL = {
    "weight": kobai.tensor([1.0, 2.0, 3.0]).double(),
    "pos_weight": kobai.tensor([3.0, 1.0, 0.5]).double(),
    "ignore_index": 2,
    "p": 2,
    "distance_function": lambda a, b: (a - b).abs().sum(-1),
    "reduction": "sum",
}


@every
def test_a_loss_is_the_function_of_its_name(name):
    """Each option reaches the function, also where it has not its default."""
    make, arrays, _ = LOSSES[name]
    layer = type(make())
    options = {k: p.default for k, p in inspect.signature(layer).parameters.items()}
    options |= {k: v + 0.25 for k, v in options.items() if isinstance(v, float)}
    options |= {k: not v for k, v in options.items() if isinstance(v, bool)}
    options |= {k: v for k, v in UNUSUAL.items() if k in options}
    if arrays[1].dtype.kind == "f":
        options.pop("ignore_index", None)  # is for class indices
    assert not any(v is None for v in options.values()), "say in UNUSUAL what such an option may be"
    function = ALIASES.get(layer.__name__) or NAMED[layer.__name__.lower()]
    arguments = [kobai.tensor(a) for a in arrays]
    np.testing.assert_array_equal(
        layer(**options)(*arguments).numpy(),
        function(*arguments, **options).numpy(),
    )


def test_every_loss_is_here():
    elsewhere = {"CTCLoss", "AdaptiveLogSoftmaxWithLoss"}  # test_ctc.py, test_adaptive_softmax.py
    losses = {name for name in vars(nn) if name.endswith("Loss")} - elsewhere
    assert losses == {type(make()).__name__ for make, _, _ in LOSSES.values()}


def test_weights_are_buffers():
    weight = kobai.tensor([1.0, 2.0, 3.0])
    for make in (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.BCEWithLogitsLoss):
        loss = make(weight).double()
        assert list(loss.state_dict()) == ["weight"]
        assert loss.weight.dtype == kobai.float64
    assert list(nn.BCEWithLogitsLoss(pos_weight=weight).state_dict()) == ["pos_weight"]


def test_weight_and_ignored_class():
    x, t = kobai.tensor(X), kobai.tensor(T)
    each = -log_softmax(X)[np.arange(4), T]
    w = np.array([1.0, 2.0, 3.0])
    loss = nn.CrossEntropyLoss(kobai.tensor(w), ignore_index=0)(x, t)
    kept = T != 0
    assert loss.item() == pytest.approx((w[T] * each)[kept].sum() / w[T][kept].sum())
    smooth = nn.CrossEntropyLoss(label_smoothing=0.3)(x, t)
    target = 0.7 * np.eye(3)[T] + 0.1
    assert smooth.item() == pytest.approx(-(target * log_softmax(X)).sum(1).mean())


def test_batchmean():
    loss = nn.KLDivLoss(reduction="batchmean")(kobai.tensor(log_softmax(X)), kobai.tensor(D))
    assert loss.item() == pytest.approx((D * (np.log(D) - log_softmax(X))).sum() / 4)


def test_variance_in_its_shapes():
    x, t = kobai.tensor(X), kobai.tensor(Y)
    by_number = F.gaussian_nll_loss(x, t, 0.5)
    for var in (kobai.full(shape, 0.5) for shape in ((4, 3), (4, 1), (1, 3), (4,))):
        assert F.gaussian_nll_loss(x, t, var.double()).item() == pytest.approx(by_number.item())
    var = np.array([[0.5, 1.0, 2.0]])
    expected = 0.5 * (np.log(var) + (X - Y) ** 2 / var)
    np.testing.assert_allclose(F.gaussian_nll_loss(x, t, kobai.tensor(var), reduction="none").numpy(), expected)
    # the bound stops the value, not the gradient
    var = kobai.tensor(np.full((4, 3), -1.0), requires_grad=True)
    F.gaussian_nll_loss(x, t, var, eps=0.1).backward()
    assert (var.grad != 0).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, t: F.cross_entropy(x, kobai.tensor([0, 1, 2, 3])), IndexError, "3"),
        (lambda x, t: F.cross_entropy(x, kobai.tensor([0, 1])), ValueError, "cross_entropy: expected target (4,)"),
        (lambda x, t: F.cross_entropy(x, t, label_smoothing=2.0), RuntimeError, "label_smoothing in [0, 1], got 2.0"),
        (lambda x, t: F.nll_loss(x, x), RuntimeError, "class indices"),
        (lambda x, t: F.binary_cross_entropy(x, x), (RuntimeError, ValueError), "binary_cross_entropy"),
        (lambda x, t: F.huber_loss(x, x, delta=0), RuntimeError, "delta > 0"),
        (lambda x, t: F.gaussian_nll_loss(x, x, kobai.ones(2)), ValueError, "expected var of shape (4, 3), got (2,)"),
        (
            lambda x, t: F.gaussian_nll_loss(x, x, kobai.ones(1, 1)),
            ValueError,
            "expected var of shape (4, 3), got (1, 1)",
        ),
        (
            lambda x, t: F.multi_margin_loss(x, t[:1]),
            RuntimeError,
            "multi_margin_loss: expected (N, C) and (N), got (4, 3)",
        ),
        (lambda x, t: F.multi_margin_loss(x[:, :0], t), RuntimeError, "expected (N, C) and (N), got (4, 0) and (4,)"),
        (lambda x, t: F.pairwise_distance(x, 2), TypeError, "pairwise_distance: expected a Tensor, got int"),
        (lambda x, t: F.cosine_embedding_loss(x, x, x), RuntimeError, "expected inputs (N, D) and target (N)"),
        (lambda x, t: F.triplet_margin_loss(x, x, x, margin=0), ValueError, "margin > 0"),
        (lambda x, t: F.triplet_margin_loss(x, x[:, :2], x), RuntimeError, "triplet_margin_loss: expected shapes that"),
        (lambda x, t: F.margin_ranking_loss(x, x[:2], x), RuntimeError, "margin_ranking_loss: expected shapes that"),
        (lambda x, t: F.hinge_embedding_loss(x, x[:2]), RuntimeError, "hinge_embedding_loss: expected shapes that"),
        (
            lambda x, t: F.soft_margin_loss(x, x[:2]),
            RuntimeError,
            "soft_margin_loss: expected target (4, 3) as the input, got (2, 3)",
        ),
        (lambda x, t: F.pairwise_distance(x, x[:2]), RuntimeError, "pairwise_distance: expected shapes that"),
        (lambda x, t: F.mse_loss(x, [1.0]), TypeError, "got list"),
        (lambda x, t: nn.MSELoss(False, True, "sum", 1), TypeError, "expected at most 4 arguments, got 5"),
    ],
)
def test_nonsense(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(kobai.tensor(X), kobai.tensor(T))


@pytest.mark.parametrize("scores", [(), (3,)], ids=str)
@pytest.mark.parametrize("target", [(), (1,)], ids=str)
def test_scores_of_one_sample_have_the_loss_of_a_batch_of_one(scores, target, backend):
    """(C) and () as (1, C) and (1); without a dimension there is one class, and nothing to lose."""
    x = kobai.tensor(X[0] if scores else X[0, 0], requires_grad=True)
    t = kobai.tensor(2 if scores else 0)
    weight = kobai.tensor([0.5, 2.0, 3.0][: x.numel()]).double()
    expected = F.multi_margin_loss(x.reshape(1, -1), t.reshape(1), 2, 0.7, weight, reduction="none")
    found = F.multi_margin_loss(x, t.reshape(target), 2, 0.7, weight, reduction="none")
    assert found.shape == target
    assert found.item() == expected.item()
    assert (found.item() == 0) == (scores == ())
    for y in (found, expected):
        (dx,) = kobai.autograd.grad(y.sum(), [x])
        assert dx.shape == x.shape
    assert F.multi_margin_loss(kobai.ones(0, 3), kobai.ones(0, dtype=kobai.int64), reduction="none").shape == (0,)


@pytest.mark.parametrize("shapes", [((1, 2), (1, 1)), ((2, 2), (2,)), ((1, 2, 3), (2, 1, 3)), ((4,), (4,))], ids=str)
def test_the_cosine_is_that_of_the_vectors_as_they_broadcast(shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape) for shape in shapes)
    wide = np.broadcast_arrays(a, b)
    expected = (wide[0] * wide[1]).sum(-1) / np.linalg.norm(wide[0], axis=-1) / np.linalg.norm(wide[1], axis=-1)
    found = nn.functional.cosine_similarity(kobai.tensor(a), kobai.tensor(b), dim=-1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
