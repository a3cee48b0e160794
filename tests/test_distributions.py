"""Distributions: formulas against PyTorch, draws against their own moments, gradients through rsample, refusals."""

from __future__ import annotations

import importlib
import math
from contextlib import suppress

import numpy as np
import pytest

import kobai
from kobai import distributions

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 3)), RNG.uniform(0.5, 2.0, (4, 3))
C, D = RNG.standard_normal((4, 3)), RNG.uniform(0.5, 2.0, (4, 3))
P, Q = RNG.uniform(0.1, 0.9, (4, 3)), RNG.uniform(0.1, 0.9, (4, 3))
K = RNG.integers(0, 3, 4)
M = RNG.standard_normal((3, 3)) * 0.3 + np.eye(3)
COVARIANCE = M @ M.T
LOWER = np.tril(M) + np.eye(3)


COUNTS = RNG.integers(0, 5, (4, 3)).astype(float)
Q4 = RNG.dirichlet(np.ones(4), 4)


# name, parameters, those of a second one, values to ask about
CASES = {
    "Normal": ("Normal", {"loc": A, "scale": B}, {"loc": C, "scale": D}, C),
    "LogNormal": ("LogNormal", {"loc": A, "scale": B}, {"loc": C, "scale": D}, B),
    "Uniform": ("Uniform", {"low": A, "high": A + B}, {"low": A - D, "high": A + B + D}, A + B * P),
    "Uniform that is not within": ("Uniform", {"low": A, "high": A + B}, {"low": A + 0.1, "high": A + B}, A + B * P),
    "Cauchy": ("Cauchy", {"loc": A, "scale": B}, {"loc": C, "scale": D}, C),
    "HalfNormal": ("HalfNormal", {"scale": B}, {"scale": D}, P),
    "HalfCauchy": ("HalfCauchy", {"scale": B}, {"scale": D}, P),
    "Gumbel": ("Gumbel", {"loc": A, "scale": B}, {"loc": C, "scale": D}, C),
    "Pareto": ("Pareto", {"scale": B, "alpha": B + 2}, {"scale": B / 2, "alpha": D}, B + P),
    "Weibull": ("Weibull", {"scale": B, "concentration": D}, {"scale": D, "concentration": B}, P),
    "Kumaraswamy": (
        "Kumaraswamy",
        {"concentration1": B, "concentration0": D},
        {"concentration1": D, "concentration0": B},
        P,
    ),
    "Gamma": ("Gamma", {"concentration": B, "rate": D}, {"concentration": D, "rate": B}, P),
    "InverseGamma": ("InverseGamma", {"concentration": B + 3, "rate": D}, {"concentration": D + 3, "rate": B}, P),
    "Chi2": ("Chi2", {"df": B}, {"df": D}, P),
    "Beta": ("Beta", {"concentration1": B, "concentration0": D}, {"concentration1": D, "concentration0": B}, P),
    "Dirichlet": ("Dirichlet", {"concentration": B}, {"concentration": D}, P / P.sum(-1, keepdims=True)),
    "StudentT": ("StudentT", {"df": B + 4, "loc": A, "scale": D}, {"df": B, "loc": C, "scale": D}, C),
    "FisherSnedecor": ("FisherSnedecor", {"df1": B + 2, "df2": D + 8}, {"df1": D, "df2": B}, P),
    "VonMises": ("VonMises", {"loc": A, "concentration": B}, {"loc": C, "concentration": D}, C),
    "ContinuousBernoulli": ("ContinuousBernoulli", {"probs": P}, {"probs": Q}, Q),
    "ContinuousBernoulli near a half": ("ContinuousBernoulli", {"probs": 0.5 + 1e-4 * A}, {"probs": Q}, Q),
    "Geometric": ("Geometric", {"probs": P}, {"probs": Q}, COUNTS),
    "Geometric by logits": ("Geometric", {"logits": A}, {"logits": C}, COUNTS),
    "Binomial": (
        "Binomial",
        {"total_count": np.float64(5), "probs": P},
        {"total_count": np.float64(5), "probs": Q},
        COUNTS,
    ),
    "NegativeBinomial": ("NegativeBinomial", {"total_count": B, "probs": P}, {"total_count": D, "logits": C}, COUNTS),
    "Poisson": ("Poisson", {"rate": B}, {"rate": D}, COUNTS),
    "Multinomial": ("Multinomial", {"probs": P}, {"probs": Q}, np.eye(3)[K]),
    "RelaxedBernoulli": (
        "RelaxedBernoulli",
        {"temperature": np.float64(0.7), "logits": A},
        {"temperature": np.float64(0.7), "logits": C},
        Q,
    ),
    "RelaxedOneHotCategorical": (
        "RelaxedOneHotCategorical",
        {"temperature": np.float64(0.7), "logits": A},
        {"temperature": np.float64(0.7), "probs": P},
        Q / Q.sum(-1, keepdims=True),
    ),
    "LogisticNormal": ("LogisticNormal", {"loc": A, "scale": B}, {"loc": C, "scale": D}, Q4),
    "LowRankMultivariateNormal": (
        "LowRankMultivariateNormal",
        {"loc": A, "cov_factor": M[:, :2], "cov_diag": B},
        {"loc": C[0], "cov_factor": M[:, 1:], "cov_diag": D[0]},
        C,
    ),
    "Exponential": ("Exponential", {"rate": B}, {"rate": D}, P),
    "Laplace": ("Laplace", {"loc": A, "scale": B}, {"loc": C, "scale": D}, C),
    "Bernoulli by probs": ("Bernoulli", {"probs": P}, {"probs": Q}, (A > 0).astype(float)),
    "Bernoulli by logits": ("Bernoulli", {"logits": A}, {"logits": C}, (A > 0).astype(float)),
    "Categorical by probs": ("Categorical", {"probs": P}, {"probs": Q}, K),
    "Categorical by logits": ("Categorical", {"logits": A}, {"logits": C}, K),
    "Categorical with a zero": (
        "Categorical",
        {"probs": np.array([0.5, 0.5, 0.0])},
        {"probs": np.array([0.5, 0.25, 0.25])},
        np.array([0, 1]),
    ),
    "OneHotCategorical": ("OneHotCategorical", {"logits": A}, {"logits": C}, np.eye(3)[K]),
    "MultivariateNormal by covariance": (
        "MultivariateNormal",
        {"loc": A, "covariance_matrix": COVARIANCE},
        {"loc": C[0], "scale_tril": LOWER},
        C,
    ),
    "MultivariateNormal by precision": (
        "MultivariateNormal",
        {"loc": A[0], "precision_matrix": COVARIANCE},
        {"loc": C, "scale_tril": LOWER},
        C,
    ),
}
CONTINUOUS = [
    *(
        "Normal",
        "LogNormal",
        "Uniform",
        "Exponential",
        "Laplace",
        "Cauchy",
        "HalfNormal",
        "Gumbel",
        "Pareto",
        "Weibull",
    ),
    *("Kumaraswamy", "ContinuousBernoulli", "LogisticNormal", "MultivariateNormal by covariance"),
]
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def make(module, package, name, options, grad=False):
    made = {k: module.tensor(v, requires_grad=grad) for k, v in options.items()}
    return getattr(package, name)(**made), list(made.values())


def results(module, package, case):
    """Everything that follows from the parameters by formula, and gradients of it."""
    name, options, others, values = case
    p, leaves = make(module, package, name, options, grad=True)
    q, _ = make(module, package, name, others)
    x = module.tensor(values)
    found = {"log_prob": p.log_prob(x)}
    answers = {
        "entropy": p.entropy,
        "kl": lambda: package.kl_divergence(p, q),
        "cdf": lambda: p.cdf(x),
        "icdf": lambda: p.icdf(module.tensor(P)),
        **{name: lambda name=name: getattr(p, name) for name in ("mean", "variance", "stddev", "mode")},
        "expanded": lambda: p.expand((2, *found["log_prob"].shape)).log_prob(x),
        "support": lambda: p.support.check(x),
        "all values": lambda: p.enumerate_support(),
    }
    for what, answer in answers.items():
        with suppress(NotImplementedError):
            found[what] = answer()
    finite = [y for k, y in found.items() if k in ("log_prob", "entropy") and np.isfinite(y.detach().numpy()).all()]
    sum(y.sum() for y in finite).backward()
    grads = {f"grad {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {k: v.detach().numpy() for k, v in {**found, **grads}.items()}, p


NOT_HERE = {"Beta": {"cdf"}}
"""What PyTorch can answer and Kobai cannot."""


@pytest.mark.oracle
@cases
def test_formulas_agree_with_pytorch(case):
    torch = importlib.import_module("torch")
    package = importlib.import_module("torch.distributions")
    torch_package = type("unchecked", (), {n: _unchecked(package, n) for n in dir(package) if n[0].isupper()})
    torch_package.kl_divergence = staticmethod(package.kl_divergence)
    expected, theirs = results(torch, torch_package, case)
    found, ours = results(kobai, distributions, case)
    assert found.keys() >= expected.keys() - NOT_HERE.get(case[0], set())
    for key in expected.keys() & found.keys():
        value = expected[key]
        if (case[0], key) == ("Kumaraswamy", "mode"):
            continue  # PyTorch's formula gives nan nearly everywhere
        if value.dtype == bool:
            value = value.astype(float)
        near = 1e-6 if case[0] == "VonMises" else 1e-9  # PyTorch's Bessel functions are rounded to float32
        np.testing.assert_allclose(found[key], value, rtol=near, atol=near, err_msg=key)
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    if case[0] in ("Normal", "Uniform", "Exponential", "Laplace"):
        assert repr(ours) == repr(theirs).replace("torch.", "kobai.")


def _unchecked(package, name):
    def made(**options):
        return getattr(package, name)(**options, validate_args=False)

    return staticmethod(made)


HEAVY = {"Cauchy", "HalfCauchy", "Pareto", "LogNormal", "InverseGamma"}
"""Of numbers so large now and then that 4,000 say little about moments: P(X ≤ x) must be uniform instead."""
LONG = {"StudentT", "FisherSnedecor", "Weibull", "Gumbel"}
WITHOUT_MOMENTS = {"RelaxedBernoulli", "RelaxedOneHotCategorical", "LogisticNormal"}


@cases
def test_draws_have_the_moments_of_the_distribution(case, backend):
    name, options, _, _ = case
    p, _ = make(kobai, distributions, name, options)
    kobai.manual_seed(0)
    x = p.sample((4000,))
    assert not x.requires_grad
    assert x.shape == (4000, *p.batch_shape, *p.event_shape)
    assert p.sample().shape == (*p.batch_shape, *p.event_shape)
    if name == "Categorical":
        frequency = kobai.nn.functional.one_hot(x, 3).double().mean(0)
        np.testing.assert_allclose(frequency.cpu().numpy(), p.probs.cpu().numpy(), atol=0.04)
        return
    if name in HEAVY:
        np.testing.assert_allclose(p.cdf(x).mean(0).cpu().numpy(), 0.5, atol=0.03)
        return
    if name in WITHOUT_MOMENTS:
        assert p.support.check(x).all()
        return
    mean, spread = x.mean(0).cpu().numpy(), p.stddev.cpu().numpy()
    if name == "VonMises":  # of angles there is a mean direction
        direction = kobai.atan2(x.sin().mean(0), x.cos().mean(0)).cpu().numpy()
        np.testing.assert_allclose(np.cos(direction - p.mean.cpu().numpy()), 1, atol=0.02)
        return
    np.testing.assert_allclose(mean, p.mean.cpu().numpy(), atol=0.15 * spread.max())
    np.testing.assert_allclose(x.std(0).cpu().numpy(), spread, rtol=0.25 if name in LONG else 0.1)


@pytest.mark.parametrize("case", CONTINUOUS)
def test_rsample_is_differentiable_in_the_parameters(case):
    name, options, _, _ = CASES[case]
    kobai.manual_seed(1)
    p, leaves = make(kobai, distributions, name, options, grad=True)
    p.rsample((2,)).sum().backward()
    analytic = [leaf.grad.numpy().copy() for leaf in leaves]
    step = 1e-6
    for i, (key, value) in enumerate(options.items()):
        shifted = []
        for sign in (1, -1):
            moved = value + sign * step * np.eye(3) if value.shape == (3, 3) else value + sign * step
            kobai.manual_seed(1)
            q, _ = make(kobai, distributions, name, {**options, key: moved})
            shifted.append(q.rsample((2,)).sum().item())
        slope = (shifted[0] - shifted[1]) / (2 * step)
        total = np.trace(analytic[i]) if value.shape == (3, 3) else analytic[i].sum()
        assert slope == pytest.approx(total, rel=1e-4, abs=1e-4)


def test_same_seed_same_draws():
    p = distributions.Normal(0.0, kobai.ones(3))
    kobai.manual_seed(5)
    x = p.sample((2,))
    kobai.manual_seed(5)
    assert kobai.equal(x, p.sample((2,)))


@pytest.mark.oracle
def test_independent_as_pytorch():
    torch = importlib.import_module("torch")
    found = []
    for module, package in ((torch, importlib.import_module("torch.distributions")), (kobai, distributions)):
        p = package.Independent(package.Normal(module.tensor(A), module.tensor(B)), 1)
        q = package.Independent(package.Normal(module.tensor(C), module.tensor(D)), 1)
        x = module.tensor(C)
        assert p.sample((2,)).shape == p.rsample((2,)).shape == (2, 4, 3)
        values = [p.log_prob(x), p.entropy(), p.mean, p.variance, p.mode, package.kl_divergence(p, q)]
        found.append([v.numpy() for v in values])
        assert (tuple(p.batch_shape), tuple(p.event_shape)) == ((4,), (3,))
        assert repr(p).startswith("Independent(Normal(loc: ")
    for result, expected in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12)
    none = distributions.Independent(distributions.Normal(0.0, 1.0), 0)
    assert none.entropy().item() == pytest.approx(0.5 + 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.Normal(0.0, -1.0), "Normal: expected scale > 0"),
        (lambda d: d.Laplace(0.0, 0.0), "Laplace: expected scale > 0"),
        (lambda d: d.Exponential(0.0), "Exponential: expected rate > 0"),
        (lambda d: d.Uniform(1.0, 1.0), "Uniform: expected high − low > 0"),
        (lambda d: d.Bernoulli(1.5), r"Bernoulli: expected probs in \[0, 1\]"),
        (lambda d: d.Bernoulli(), "either probs or logits, got neither"),
        (lambda d: d.Categorical(kobai.ones(2), kobai.ones(2)), "either probs or logits, got both"),
        (lambda d: d.Categorical(kobai.tensor([-1.0, 2.0])), "Categorical: expected probs numbers >= 0 with the sum 1"),
        (lambda d: d.Categorical(kobai.tensor(1.0)), "expected a Tensor"),
        (lambda d: d.Independent(d.Normal(0.0, 1.0), 1), "expected 0 to 0 dimensions"),
        (lambda d: d.MultivariateNormal(kobai.zeros(2)), "exactly one of .* got 0"),
        (lambda d: d.MultivariateNormal(kobai.zeros(2), kobai.eye(3)), r"got \(2,\) and \(3, 3\)"),
    ],
)
def test_bad_parameters(call, message):
    with pytest.raises(ValueError, match=message):
        call(distributions)


def test_what_a_distribution_lacks():
    with pytest.raises(NotImplementedError, match=r"Categorical.rsample: these draws have no gradient"):
        distributions.Categorical(kobai.ones(2)).rsample()
    for call in ("mean", "variance", "mode"):
        with pytest.raises(NotImplementedError, match=f"Distribution has no {call}"):
            getattr(distributions.Distribution(), call)
    for call in ("log_prob", "cdf"):
        with pytest.raises(NotImplementedError, match=f"no {call}"):
            getattr(distributions.Distribution(), call)(kobai.ones(1))
    with pytest.raises(NotImplementedError, match="no entropy"):
        distributions.Distribution().entropy()
    with pytest.raises(NotImplementedError, match="no formula for Normal and Laplace"):
        distributions.kl_divergence(distributions.Normal(0.0, 1.0), distributions.Laplace(0.0, 1.0))
    one = distributions.Normal(kobai.zeros(2, 2), kobai.ones(2, 2))
    with pytest.raises(NotImplementedError, match="equally many"):
        distributions.kl_divergence(distributions.Independent(one, 1), distributions.Independent(one, 2))
    with pytest.raises(ValueError, match="value as a Tensor, got float"):
        one.log_prob(0.5)


def test_precision_of_a_multivariate_normal():
    p = distributions.MultivariateNormal(kobai.zeros(3, dtype=kobai.float64), kobai.tensor(COVARIANCE))
    product = p.precision_matrix @ p.covariance_matrix
    np.testing.assert_allclose(product.numpy(), np.eye(3), atol=1e-9)


def test_module_path_of_kl():
    module = importlib.import_module("kobai.distributions.kl")
    assert module.kl_divergence is distributions.kl_divergence


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0, 20.0, 59.0, 61.0, 1000.0])
def test_draws_of_gamma_are_differentiable_in_the_shape(alpha):
    """dz/dα = −(∂P/∂α) / p(z), here with a difference quotient of P."""
    kobai.manual_seed(0)
    shape = kobai.full((40,), alpha, dtype=kobai.float64, requires_grad=True)
    z = distributions.Gamma(shape, 1.0).rsample()
    (slope,) = kobai.autograd.grad(z.sum(), [shape])
    x, h = z.detach(), 1e-4 * alpha
    upper, lower = (kobai.igamma(shape.detach() + s * h, x) for s in (1, -1))
    density = distributions.Gamma(shape.detach(), 1.0).log_prob(x).exp()
    expected = -(upper - lower) / (2 * h) / density
    near = 2e-3 if alpha > 60 else 1e-5  # beyond 60 by an approximation
    np.testing.assert_allclose(slope.numpy(), expected.numpy(), rtol=near, atol=near * alpha)


def test_gradients_of_averages_of_draws():
    """The gradient of E[x] by draws is that of the mean."""
    kobai.manual_seed(0)
    for make, names in (
        (lambda a, b: distributions.Beta(a, b), "mean"),
        (lambda a, b: distributions.Gamma(a, b), "mean"),
        (lambda a, b: distributions.StudentT(a + 4, 0.0, b), "variance"),
        (lambda a, b: distributions.Chi2(a * b), "mean"),
    ):
        a, b = (kobai.tensor(v, dtype=kobai.float64, requires_grad=True) for v in (1.5, 2.5))
        p = make(a, b)
        x = p.rsample((40000,))
        estimate = x.mean() if names == "mean" else (x * x).mean()
        wanted = kobai.autograd.grad(getattr(p, names), [a, b], allow_unused=True, retain_graph=True)
        for found, exact in zip(kobai.autograd.grad(estimate, [a, b], allow_unused=True), wanted, strict=True):
            assert found.item() == pytest.approx(exact.item(), rel=0.15, abs=0.01)


PAIRS = ["Beta", "ContinuousBernoulli by probs", "Exponential", "Gamma", "Gumbel", "Laplace", "Uniform"]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "kinds", [*((k, "Normal") for k in PAIRS), ("Exponential", "Gamma"), ("Gamma", "Exponential")], ids=str
)
def test_divergences_of_two_kinds_as_pytorch(kinds):
    torch = importlib.import_module("torch")
    found = []
    for module, package in ((torch, importlib.import_module("torch.distributions")), (kobai, distributions)):
        p, q = (make(module, package, *CASES.get(k, CASES["ContinuousBernoulli"])[:2])[0] for k in kinds)
        found.append(package.kl_divergence(p, q).numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


def mixtures(module, package):
    numbers = package.MixtureSameFamily(
        package.Categorical(module.tensor(P)), package.Normal(module.tensor(A), module.tensor(B))
    )
    vectors = package.MixtureSameFamily(
        package.Categorical(module.tensor(P[0])),
        package.Independent(package.Normal(module.tensor(A[:3]), module.tensor(B[:3])), 1),
    )
    x, y = module.tensor(C[:, 0]), module.tensor(C)
    return [
        *(numbers.log_prob(x), numbers.mean, numbers.variance, numbers.cdf(x), numbers.expand((2, 4)).log_prob(x)),
        *(vectors.log_prob(y), vectors.mean, vectors.variance, vectors.expand((4,)).log_prob(y)),
    ]


@pytest.mark.oracle
def test_mixtures_as_pytorch():
    torch = importlib.import_module("torch")
    theirs = mixtures(torch, importlib.import_module("torch.distributions"))
    for ours, expected in zip(mixtures(kobai, distributions), theirs, strict=True):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-10)


def test_draws_of_a_mixture(backend):
    kobai.manual_seed(0)
    d = distributions
    p = d.MixtureSameFamily(
        d.Categorical(kobai.tensor([0.25, 0.75])), d.Normal(kobai.tensor([-5.0, 5.0]), kobai.ones(2))
    )
    x = p.sample((4000,))
    assert x.shape == (4000,)
    assert (x > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)
    q = d.MixtureSameFamily(d.Categorical(kobai.ones(3)), d.MultivariateNormal(kobai.zeros(3, 2), kobai.eye(2)))
    assert q.sample((5,)).shape == (5, 2)
    assert (q.batch_shape, q.event_shape) == ((), (2,))
    with pytest.raises(ValueError, match=r"expected components of batch \(..., 2\), got \(3,\)"):
        d.MixtureSameFamily(d.Categorical(kobai.ones(2)), d.Normal(kobai.zeros(3), 1.0))
    with pytest.raises(ValueError, match="expected a Categorical and another Distribution"):
        d.MixtureSameFamily(d.Normal(0.0, 1.0), d.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.Normal(0.0, 1.0).log_prob(kobai.tensor(math.nan)), "Normal: expected a value a number, not nan"),
        (lambda d: d.Bernoulli(0.5).log_prob(kobai.tensor(0.5)), "Bernoulli: expected a value 0 or 1, got 0.5"),
        (lambda d: d.Gamma(1.0, 1.0).log_prob(kobai.tensor(-1.0)), "Gamma: expected a value >= 0, got -1"),
        (lambda d: d.Categorical(kobai.ones(3)).log_prob(kobai.tensor(3)), r"an integer in \[0, 2\], got 3"),
        (lambda d: d.Normal(kobai.zeros(2), 1.0).log_prob(kobai.zeros(3)), r"expected a value \(..., 2\), got \(3,\)"),
        (lambda d: d.Beta(-1.0, 1.0), "Beta: expected concentration1 > 0, got -1"),
        (lambda d: d.Poisson(-1.0), "Poisson: expected rate >= 0"),
        (lambda d: d.Dirichlet(kobai.tensor(1.0)), r"Dirichlet: expected concentration as a Tensor \(..., K\)"),
        (lambda d: d.MultivariateNormal(kobai.zeros(2), -kobai.eye(2)), "covariance_matrix positive definite matrices"),
        (
            lambda d: d.LowRankMultivariateNormal(kobai.zeros(2), kobai.ones(3, 1), kobai.ones(2)),
            r"got \(2,\), \(3, 1\)",
        ),
        (lambda d: d.TransformedDistribution(d.Normal(0.0, 1.0), [1]), "expected a Transform or a list of them"),
        (lambda d: d.TransformedDistribution(d.Normal(0.0, 1.0), d.StickBreakingTransform()), "a base of 1 dimensions"),
        (lambda d: d.ExpTransform(cache_size=2), "ExpTransform: expected cache_size 0 or 1, got 2"),
        (lambda d: d.Distribution.set_default_validate_args(3), "expected True or False"),
    ],
)
def test_what_is_outside_its_set_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(distributions)


def test_checks_can_be_left_out():
    d = distributions
    assert d.Gamma(1.0, 1.0, validate_args=False).log_prob(kobai.tensor(-1.0)).isnan().item() in (True, False)
    assert d.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    assert d.Uniform(kobai.zeros(2), 1.0, validate_args=False).expand((3, 2)).log_prob(kobai.full((2,), 5.0)).shape == (
        3,
        2,
    )
    d.Distribution.set_default_validate_args(False)
    try:
        assert d.Normal(0.0, -1.0).scale.item() == -1
    finally:
        d.Distribution.set_default_validate_args(True)


def test_a_captured_step_checks_its_values_too():
    def step(x):
        return distributions.Exponential(kobai.ones(3)).log_prob(x)

    captured = kobai.capture(step)
    for _ in range(3):
        assert kobai.equal(captured(kobai.ones(3)), -kobai.ones(3))
    with pytest.raises(ValueError, match="Exponential: expected a value >= 0"):
        captured(-kobai.ones(3))


def test_expanded_distributions_keep_what_they_were_given():
    p = distributions.Bernoulli(logits=kobai.zeros(2))
    assert p.probs.shape == (2,)
    q = p.expand((3, 2))
    assert "probs" not in q.__dict__
    assert (q.batch_shape, q.logits.shape, repr(q)) == ((3, 2), (3, 2), "Bernoulli(logits: kobai.Size([3, 2]))")
    assert distributions.Independent(p, 1).expand((4,)).batch_shape == (4,)
    assert distributions.Binomial(3, kobai.tensor([0.5])).expand((2,)).enumerate_support().shape == (4, 2)


def test_a_distribution_of_a_users_own():
    """By the recipe of PyTorch's manual: constraints, a lazy property, and the helpers of utils."""
    utils = importlib.import_module("kobai.distributions.utils")

    class Coin(distributions.Distribution):
        arg_constraints = {"probs": distributions.constraints.unit_interval}  # noqa: RUF012
        support = distributions.constraints.boolean

        def __init__(self, probs, validate_args=None):
            (self.probs,) = utils.broadcast_all(probs)
            super().__init__(self.probs.shape, validate_args=validate_args)

        @utils.lazy_property
        def logits(self):
            return utils.probs_to_logits(self.probs, is_binary=True)

        def log_prob(self, value):
            p = utils.clamp_probs(self.probs)
            return value * p.log() + (1 - value) * (1 - p).log()

    p, theirs = Coin(kobai.tensor([0.25, 0.5])), distributions.Bernoulli(kobai.tensor([0.25, 0.5]))
    np.testing.assert_allclose(p.log_prob(kobai.ones(2)).numpy(), theirs.log_prob(kobai.ones(2)).numpy(), rtol=1e-5)
    np.testing.assert_allclose(utils.logits_to_probs(p.logits, is_binary=True).numpy(), [0.25, 0.5], rtol=1e-6)
    assert p.expand((3, 2)).batch_shape == (3, 2)
    assert repr(p) == "Coin(probs: kobai.Size([2]))"
    with pytest.raises(ValueError, match=r"Coin: expected probs in \[0, 1\]"):
        Coin(2.0)


def test_what_libraries_of_distributions_take_from_utils():
    from kobai.distributions.utils import _standard_normal, _sum_rightmost

    x = kobai.arange(24.0).reshape(2, 3, 4)
    assert _sum_rightmost(x, 0) is x
    assert kobai.equal(_sum_rightmost(x, 2), x.sum((1, 2)))
    drawn = _standard_normal(kobai.Size([2, 3]), dtype=kobai.float64, device=kobai.device("cpu"))
    assert (drawn.shape, drawn.dtype) == ((2, 3), kobai.float64)
    kobai.manual_seed(0)
    assert abs(_standard_normal((10000,), dtype=kobai.float32, device="cpu").mean().item()) < 0.05


class Shifted(distributions.Normal):
    """As users write them: an __init__ of their own, so an ``expand`` in the protocol of the base."""

    def __init__(self, base: float, note: str, validate_args=None):
        self.note = note
        super().__init__(kobai.tensor(base), kobai.tensor(1.0), validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Shifted, _instance)
        new.note = self.note
        return super().expand(batch_shape, _instance=new)


class Vector(distributions.Independent):
    def __init__(self, loc, scale):
        super().__init__(distributions.Normal(loc, scale), 1)

    def expand(self, batch_shape, new=None):
        return super().expand(batch_shape, self._get_checked_instance(Vector, new))


class Flow(distributions.TransformedDistribution):
    def __init__(self, low):
        super().__init__(distributions.Uniform(low, low + 1), [distributions.ExpTransform()])

    def expand(self, batch_shape, new=None):
        return super().expand(batch_shape, self._get_checked_instance(Flow, new))


class Box(distributions.Distribution):
    arg_constraints = {"low": distributions.constraints.real}  # noqa: RUF012

    def __init__(self, low, validate_args=None):
        self.low = low
        super().__init__(low.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Box, _instance)
        new.low = self.low.expand(batch_shape)
        super(Box, new).__init__(batch_shape, validate_args=False)
        return new


class SmallBox(Box):
    def __init__(self):
        super().__init__(kobai.zeros(()))


def test_distributions_of_users_draw_and_check_by_the_bases_methods():
    class Point(distributions.Distribution):
        arg_constraints = {"loc": distributions.constraints.real}  # noqa: RUF012
        support = distributions.constraints.positive
        has_rsample = True

        def __init__(self, loc, validate_args=None):
            self.loc = loc
            super().__init__(loc.size(), validate_args=validate_args)

        def rsample(self, sample_shape=()):
            return self.loc.expand(self._extended_shape(sample_shape))

        def log_prob(self, value):
            if self._validate_args:
                self._validate_sample(value)
            return -((value - self.loc) ** 2)

    p = Point(kobai.ones(2))
    assert p.sample((3,)).shape == (3, 2)
    assert p.sample().shape == p._extended_shape() == (2,)
    assert p.log_prob(kobai.full((2,), 3.0)).tolist() == [-4, -4]
    with pytest.raises(ValueError, match="Point: expected a value"):
        p.log_prob(-kobai.ones(2))


def test_distributions_of_users_expand():
    wide = Shifted(2.0, "mine").expand((3,))
    assert (type(wide), wide.note, wide.batch_shape) == (Shifted, "mine", (3,))
    assert wide.sample((2,)).shape == (2, 3)
    assert wide.log_prob(kobai.full((3,), 2.0)).shape == (3,)
    wide = Vector(kobai.zeros(3), kobai.ones(3)).expand((2,))
    assert (type(wide), wide.batch_shape, wide.event_shape) == (Vector, (2,), (3,))
    assert wide.rsample().shape == (2, 3)
    wide = Flow(kobai.zeros(())).expand((4,))
    assert type(wide) is Flow
    assert wide.log_prob(kobai.full((4,), 2.0)).shape == (4,)
    assert Box(kobai.zeros(())).expand((5,)).low.shape == (5,)
    with pytest.raises(NotImplementedError, match=r"SmallBox: a subclass of Box .* must define expand"):
        SmallBox().expand((2,))


@pytest.mark.oracle
@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("concentration", [0.5, 1.0, [1.0, 2.5]])
def test_lkj_agrees_with_pytorch(dim, concentration):
    torch = importlib.import_module("torch")
    package = importlib.import_module("torch.distributions")
    eta = np.asarray(concentration)
    theirs = package.LKJCholesky(dim, torch.tensor(eta))
    ours = distributions.LKJCholesky(dim, kobai.tensor(eta))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        factors = theirs.sample((7,))
    ask = kobai.tensor(factors.numpy())
    np.testing.assert_allclose(ours.log_prob(ask).numpy(), theirs.log_prob(factors).numpy(), rtol=1e-12, atol=1e-12)
    assert ours.expand((3, *eta.shape)).log_prob(ask[:3]).shape == (3, *eta.shape)


@pytest.mark.parametrize("concentration", [1.0, 3.0])
def test_draws_of_lkj_are_correlations_of_the_right_spread(concentration):
    """Of dim variables each correlation has the distribution 2·Beta(a, a) − 1, a = η + dim/2 − 1: variance 1 / (2a + 1)."""
    kobai.manual_seed(0)
    lower = distributions.LKJCholesky(4, concentration).sample((8000,))
    matrices = lower @ lower.mT
    np.testing.assert_allclose(matrices.diagonal(dim1=-2, dim2=-1).numpy(), 1, rtol=1e-5)
    expected = 1 / (2 * (concentration + 1) + 1)
    for i in range(4):
        for j in range(i):
            assert abs(matrices[:, i, j].mean().item()) < 0.03
            assert matrices[:, i, j].var().item() == pytest.approx(expected, rel=0.1)
