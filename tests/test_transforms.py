"""Transforms: there and back, log-determinants against Jacobians and PyTorch, and what leads to each constraint."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import kobai
from kobai import distributions
from kobai.distributions import constraints

RNG = np.random.default_rng(3)
X = RNG.uniform(-1, 1, (4, 3))

# what is made of the module and its package, and values of its domain
TRANSFORMS = {
    "exp": (lambda m, d: d.ExpTransform(), X),
    "sigmoid": (lambda m, d: d.SigmoidTransform(), X),
    "tanh": (lambda m, d: d.TanhTransform(), X),
    "softplus": (lambda m, d: d.SoftplusTransform(), X),
    "power": (lambda m, d: d.PowerTransform(m.tensor(1.5, dtype=m.float64)), np.exp(X)),
    "affine": (lambda m, d: d.AffineTransform(m.tensor([1.0, 2.0, 3.0], dtype=m.float64), -2.0), X),
    "affine of vectors": (
        lambda m, d: d.AffineTransform(1.0, m.tensor([1.0, -2.0, 3.0], dtype=m.float64), event_dim=1),
        X,
    ),
    "inverse": (lambda m, d: d.ExpTransform().inv, np.exp(X)),
    "composed": (
        lambda m, d: d.ComposeTransform([d.AffineTransform(0.5, 2.0), d.TanhTransform(), d.ExpTransform()]),
        X,
    ),
    "composed and turned": (
        lambda m, d: d.ComposeTransform([d.ExpTransform(), d.AffineTransform(0.0, 2.0)]).inv,
        np.exp(X),
    ),
    "nothing": (lambda m, d: d.ComposeTransform([]), X),
    "composed of numbers and vectors": (
        lambda m, d: d.ComposeTransform([d.ExpTransform(), d.StickBreakingTransform()]),
        X,
    ),
    "independent": (lambda m, d: d.IndependentTransform(d.ExpTransform(), 1), X),
    "reshape": (lambda m, d: d.ReshapeTransform((4, 3), (2, 6)), X),
    "cat": (lambda m, d: d.CatTransform([d.ExpTransform(), d.TanhTransform()], -1, [1, 2]), X),
    "stack": (lambda m, d: d.StackTransform([d.ExpTransform(), d.TanhTransform(), d.SigmoidTransform()], -1), X),
    "stick breaking": (lambda m, d: d.StickBreakingTransform(), X),
    "correlations": (lambda m, d: d.CorrCholeskyTransform(), X),
    "cumulated": (lambda m, d: d.CumulativeDistributionTransform(d.Normal(m.tensor(0.5, dtype=m.float64), 2.0)), X),
    "softmax": (lambda m, d: d.SoftmaxTransform(), X),
    "absolute": (lambda m, d: d.AbsTransform(), X),
    "lower triangle": (lambda m, d: d.LowerCholeskyTransform(), RNG.normal(size=(2, 3, 3))),
    "positive definite": (lambda m, d: d.PositiveDefiniteTransform(), RNG.normal(size=(2, 3, 3))),
}
transforms = pytest.mark.parametrize("name", TRANSFORMS)


def built(name, module=kobai, package=distributions):
    make, x = TRANSFORMS[name]
    return make(module, package), module.tensor(x)


@transforms
def test_there_and_back(name, backend):
    t, x = built(name)
    y = t(x)
    assert t.codomain.check(y).all()
    assert tuple(y.shape) == tuple(t.forward_shape(x.shape))
    assert tuple(t.inverse_shape(y.shape)) == tuple(x.shape)
    if t.bijective:
        np.testing.assert_allclose(t.inv(y).cpu().numpy(), x.cpu().numpy(), rtol=1e-8, atol=1e-10)
        back = t.inv.log_abs_det_jacobian(y, x)
        np.testing.assert_allclose(back.cpu().numpy(), -t.log_abs_det_jacobian(x, y).cpu().numpy(), rtol=1e-9)
    else:
        np.testing.assert_allclose(t(t.inv(y)).cpu().numpy(), y.cpu().numpy(), rtol=1e-8)


@pytest.mark.parametrize(
    "name", ["exp", "sigmoid", "tanh", "softplus", "power", "affine", "composed", "cat", "stack", "cumulated"]
)
def test_log_determinants_are_those_of_the_slope(name):
    t, x = built(name)
    x.requires_grad_()
    (slope,) = kobai.autograd.grad(t(x).sum(), [x])
    np.testing.assert_allclose(t.log_abs_det_jacobian(x, t(x)).detach().numpy(), slope.abs().log().numpy(), atol=1e-10)


def results(name, module, package):
    t, x = built(name, module, package)
    y = t(x)
    found = [y, t.inv(y)]
    if t.bijective:
        found.append(t.log_abs_det_jacobian(x, y))
    return [*map(np.asarray, found)], (t.domain.event_dim, t.codomain.event_dim, repr(t))


@pytest.mark.oracle
@transforms
def test_as_pytorch(name):
    torch = importlib.import_module("torch")
    theirs, their_dims = results(name, torch, importlib.import_module("torch.distributions"))
    ours, our_dims = results(name, kobai, distributions)
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert our_dims[:2] == their_dims[:2]
    if name not in ("inverse", "composed and turned", "independent"):
        assert our_dims[2] == their_dims[2]


def flow(module, package):
    f = module.float64
    base = package.Normal(module.zeros(3, dtype=f), module.ones(3, dtype=f))
    scale = module.tensor([0.5, 2.0, 3.0], dtype=f, requires_grad=True)
    p = package.TransformedDistribution(base, [package.AffineTransform(0.0, scale), package.TanhTransform()])
    q = package.TransformedDistribution(
        package.Independent(base, 1), [package.ExpTransform(), package.AffineTransform(1.0, 2.0)]
    )
    r = package.TransformedDistribution(base, package.StickBreakingTransform())
    x = module.tensor([[0.1, -0.5, 0.25]], dtype=f)
    values = [p.log_prob(x), p.cdf(x), p.icdf(module.tensor([0.5, 0.25, 0.1], dtype=f)), q.log_prob(x + 3)]
    values.append(r.log_prob(module.tensor([0.25, 0.25, 0.2, 0.3], dtype=f)))
    values.append(p.expand((2, 3)).log_prob(x))
    values[0].sum().backward()
    shapes = [(tuple(d.batch_shape), tuple(d.event_shape), d.has_rsample, d.support.event_dim) for d in (p, q, r)]
    return [v.detach().numpy() for v in values] + [scale.grad.numpy()], shapes


@pytest.mark.oracle
def test_transformed_distributions_as_pytorch():
    theirs = flow(importlib.import_module("torch"), importlib.import_module("torch.distributions"))
    ours = flow(kobai, distributions)
    assert ours[1] == theirs[1]
    for found, expected in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_draws_of_a_transformed_distribution():
    kobai.manual_seed(0)
    scale = kobai.tensor([2.0, 3.0], requires_grad=True)
    p = distributions.TransformedDistribution(
        distributions.Normal(kobai.zeros(2), 1.0),
        [distributions.AffineTransform(1.0, scale), distributions.ExpTransform()],
    )
    assert p.rsample((5,)).requires_grad
    assert not p.sample((5,)).requires_grad
    x = p.sample((4000,)).log()
    np.testing.assert_allclose(x.mean(0).numpy(), 1.0, atol=0.15)
    np.testing.assert_allclose(x.std(0).numpy(), [2.0, 3.0], rtol=0.05)
    with pytest.raises(NotImplementedError, match="these draws have no gradient"):
        distributions.TransformedDistribution(distributions.Poisson(1.0), distributions.ExpTransform()).rsample()
    with pytest.raises(NotImplementedError, match="neither rises nor falls"):
        distributions.TransformedDistribution(distributions.Normal(0.0, 1.0), distributions.AbsTransform()).cdf(
            kobai.ones(1)
        )


def test_a_cache_gives_the_same_tensor_back():
    for t in (
        distributions.TanhTransform(cache_size=1),
        distributions.ComposeTransform([distributions.TanhTransform()], 1),
    ):
        x = kobai.tensor([20.0])
        y = t(x)
        assert t.inv(y) is x
        assert t(x) is y
    plain = distributions.TanhTransform()
    assert plain.with_cache(0) is plain
    assert plain.with_cache(1)._cache_size == 1
    assert plain == distributions.TanhTransform()
    assert distributions.AffineTransform(0.0, 1.0) == distributions.AffineTransform(0.0, 1.0)
    assert distributions.AffineTransform(0.0, kobai.ones(2)) != distributions.AffineTransform(0.0, 2 * kobai.ones(2))


NAMED = {
    name: getattr(constraints, name)
    for name in (
        "real",
        "positive",
        "nonnegative",
        "unit_interval",
        "simplex",
        "real_vector",
        "corr_cholesky",
        "lower_cholesky",
    )
} | {
    "greater_than": constraints.greater_than(2.0),
    "greater_than_eq": constraints.greater_than_eq(-1.0),
    "less_than": constraints.less_than(1.0),
    "interval": constraints.interval(-2.0, 3.0),
    "half_open_interval": constraints.half_open_interval(0.0, 5.0),
    "independent": constraints.independent(constraints.positive, 1),
    "positive_definite": constraints.positive_definite,
    "cat": constraints.cat([constraints.positive, constraints.real], -1, [1, 2]),
    "stack": constraints.stack([constraints.positive, constraints.real, constraints.unit_interval], -1),
}


@pytest.mark.parametrize("registry", [distributions.biject_to, distributions.transform_to])
@pytest.mark.parametrize("name", NAMED)
def test_a_transform_leads_to_every_constraint(name, registry):
    constraint = NAMED[name]
    shape = (2, 3, 3) if name in ("positive_definite", "lower_cholesky") else (4, 3)
    t = registry(constraint)
    y = t(kobai.tensor(RNG.normal(size=shape)))
    assert constraint.check(y).all()
    if registry is distributions.biject_to and name not in ("lower_cholesky", "positive_definite"):
        assert t.bijective
    assert repr(constraint)
    assert constraint.words


def test_constraints_without_a_transform():
    with pytest.raises(NotImplementedError, match="no transform to Boolean"):
        distributions.transform_to(constraints.boolean)

    @distributions.transform_to.register(constraints.boolean)
    def _(constraint):
        return distributions.SigmoidTransform()

    assert distributions.transform_to(constraints.boolean) == distributions.SigmoidTransform()
    distributions.transform_to._factories.pop(0)
    assert constraints.is_dependent(distributions.Uniform.support)
    with pytest.raises(ValueError, match="does not depend on parameters"):
        constraints.dependent.check(kobai.ones(1))


CHECKS = [
    ("boolean", [0.0, 1.0, 0.5]),
    ("nonnegative_integer", [0.0, 1.5, -1.0]),
    ("positive_integer", [0.0, 1.0, 2.5]),
    ("simplex", [[0.5, 0.5], [0.5, 0.6], [-0.5, 1.5]]),
    ("one_hot", [[0.0, 1.0], [1.0, 1.0], [0.5, 0.5]]),
    ("lower_triangular", [[[1.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]]),
    ("lower_cholesky", [[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [5.0, 1.0]]]),
    ("corr_cholesky", [[[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [5.0, 1.0]]]),
    ("symmetric", [[[1.0, 2.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]]),
    ("positive_definite", [[[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]]]),
    ("positive_semidefinite", [[[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]]),
    ("square", [[[1.0, 2.0], [2.0, 1.0]]]),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "values"), CHECKS)
def test_constraints_as_pytorch(name, values):
    torch = importlib.import_module("torch")
    theirs = getattr(importlib.import_module("torch.distributions").constraints, name)
    ours = getattr(constraints, name)
    assert ours.check(kobai.tensor(values)).tolist() == theirs.check(torch.tensor(values)).tolist()
    assert (ours.event_dim, ours.is_discrete) == (theirs.event_dim, theirs.is_discrete)


def test_counts_with_a_sum():
    assert constraints.multinomial(3).check(kobai.tensor([[1.0, 2.0], [2.0, 2.0]])).tolist() == [True, False]
