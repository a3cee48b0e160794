"""Distributions: formulas against PyTorch, draws against their own moments, gradients through rsample, refusals."""

from __future__ import annotations

import importlib
import math

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


# name, parameters, those of a second one, values to ask about
CASES = {
    "Normal": ("Normal", {"loc": A, "scale": B}, {"loc": C, "scale": D}, C),
    "LogNormal": ("LogNormal", {"loc": A, "scale": B}, {"loc": C, "scale": D}, B),
    "Uniform": ("Uniform", {"low": A, "high": A + B}, {"low": A - D, "high": A + B + D}, A + B * P),
    "Uniform outside": ("Uniform", {"low": A, "high": A + B}, {"low": A + 0.1, "high": A + B}, A - 1),
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
CONTINUOUS = ["Normal", "LogNormal", "Uniform", "Exponential", "Laplace", "MultivariateNormal by covariance"]
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
    found = {"log_prob": p.log_prob(x), "entropy": p.entropy()}
    found["kl"] = package.kl_divergence(p, q)
    for attribute in ("mean", "variance", "stddev", "mode"):
        if not (
            name.startswith(("Uniform", "Exponential", "Laplace", "Bernoulli", "LogNormal", "OneHot"))
            and attribute == "mode"
        ):
            found[attribute] = getattr(p, attribute) if not (name == "Categorical" and attribute != "mode") else x
    if name in ("Normal", "Uniform", "Exponential"):
        found["cdf"] = p.cdf(x)
    finite = [y for k, y in found.items() if k in ("log_prob", "entropy") and np.isfinite(y.detach().numpy()).all()]
    sum(y.sum() for y in finite).backward()
    grads = {f"grad {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {k: v.detach().numpy() for k, v in {**found, **grads}.items()}, p


@pytest.mark.oracle
@cases
def test_formulas_agree_with_pytorch(case):
    torch = importlib.import_module("torch")
    package = importlib.import_module("torch.distributions")
    torch_package = type(
        "unchecked", (), {n: _unchecked(package, n) for n in distributions.__all__ if n != "Distribution"}
    )
    torch_package.kl_divergence = staticmethod(package.kl_divergence)
    expected, theirs = results(torch, torch_package, case)
    found, ours = results(kobai, distributions, case)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-9, err_msg=key)
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    if case[0] in ("Normal", "Uniform", "Exponential", "Laplace"):
        assert repr(ours) == repr(theirs).replace("torch.", "kobai.")


def _unchecked(package, name):
    def made(**options):
        return getattr(package, name)(**options, validate_args=False)

    return staticmethod(made)


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
    mean, spread = x.mean(0).cpu().numpy(), p.stddev.cpu().numpy()
    np.testing.assert_allclose(mean, p.mean.cpu().numpy(), atol=0.15 * spread.max())
    if name != "LogNormal":
        np.testing.assert_allclose(x.std(0).cpu().numpy(), spread, rtol=0.1)


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
        (lambda d: d.Categorical(kobai.tensor([-1.0, 2.0])), "Categorical: expected probs ≥ 0"),
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
    with pytest.raises(TypeError, match="value as a Tensor, got float"):
        one.log_prob(0.5)


def test_precision_of_a_multivariate_normal():
    p = distributions.MultivariateNormal(kobai.zeros(3, dtype=kobai.float64), kobai.tensor(COVARIANCE))
    product = p.precision_matrix @ p.covariance_matrix
    np.testing.assert_allclose(product.numpy(), np.eye(3), atol=1e-9)


def test_module_path_of_kl():
    assert importlib.import_module("kobai.distributions.kl").kl_divergence is distributions.kl_divergence
