"""Scientific computing: EM, PCA, nearest neighbours, regression in closed form, confusion matrices, Kalman, MCMC."""

import numpy as np
import torch


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal([3, 3], 0.8, (60, 2)), rng.normal([-2, 0], 1.0, (60, 2))])
    return torch.from_numpy(x), torch.tensor([0] * 60 + [1] * 60)


def gaussian_mixture(X, K=2, steps=20):
    pi = torch.ones(K, dtype=X.dtype) / K
    mu = X[[0, -1]].clone()
    cov = torch.stack([torch.eye(2, dtype=X.dtype)] * K)
    history = []
    for _ in range(steps):
        diff = X[:, None] - mu[None]
        m = torch.einsum("nki,kij,nkj->nk", diff, torch.inverse(cov), diff)
        log_prob = -0.5 * (m + torch.logdet(cov) + 2 * np.log(2 * np.pi)) + pi.log()
        ll = torch.logsumexp(log_prob, 1, keepdim=True)
        r = (log_prob - ll).exp()
        Nk = r.sum(0)
        pi = Nk / len(X)
        mu = (r.T @ X) / Nk[:, None]
        diff = X[:, None] - mu[None]
        cov = torch.einsum("nk,nki,nkj->kij", r, diff, diff) / Nk[:, None, None] + 1e-6 * torch.eye(2, dtype=X.dtype)
        history.append(ll.sum().item())
    assert all(b >= a - 1e-6 for a, b in zip(history, history[1:]))
    return mu, r.argmax(1), history[-1]


def confusion(y, p, classes):
    cm = torch.bincount(y * classes + p, minlength=classes**2).reshape(classes, classes)
    other = torch.zeros(classes, classes, dtype=torch.int64)
    other.index_put_((y, p), torch.ones_like(y), accumulate=True)
    third = torch.zeros(classes, classes)
    for t, q in zip(y.view(-1), p.view(-1)):
        third[t.long(), q.long()] += 1
    assert torch.equal(cm, other) and torch.equal(cm, third.long())
    precision = cm.diag() / cm.sum(0).clamp(min=1)
    recall = cm.diag().float() / cm.sum(1)
    f1 = 2 * precision * recall / (precision + recall)
    errors = cm.float().fill_diagonal_(0).sum()
    return cm, f1.mean(), errors


def nearest_neighbours(X, y, queries, k=5):
    distances, index = torch.cdist(queries, X).topk(k, largest=False)
    return torch.mode(y[index], dim=1).values


def principal_components(X):
    Xc = X - X.mean(0)
    U, S, Vh = torch.linalg.svd(Xc, full_matrices=False)
    variance = S**2 / (len(X) - 1)
    w, v = torch.linalg.eigh(torch.cov(X.T))
    assert torch.allclose(w.flip(0), variance)
    assert torch.allclose((v[:, -1] * Vh[0]).sum().abs(), torch.ones((), dtype=X.dtype))
    return (variance / variance.sum()).cumsum(0)


def regression(X):
    A = torch.hstack([X, torch.ones(len(X), 1, dtype=X.dtype)])
    y = A @ torch.tensor([1.0, -2.0, 0.5], dtype=X.dtype)
    by_normal = torch.linalg.solve(A.T @ A, A.T @ y)
    by_lstsq = torch.linalg.lstsq(A, y[:, None]).solution.squeeze()
    L = torch.linalg.cholesky(A.T @ A)
    by_cholesky = torch.cholesky_solve((A.T @ y)[:, None], L).squeeze()
    by_pinv = torch.linalg.pinv(A) @ y
    for w in (by_lstsq, by_cholesky, by_pinv):
        assert torch.allclose(w, by_normal)
    return by_normal


def kalman(observations):
    """Position and velocity from noisy positions."""
    F = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    H = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    Q, R = 1e-4 * torch.eye(2, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    x, P = torch.zeros(2, 1, dtype=torch.float64), 10 * torch.eye(2, dtype=torch.float64)
    for z in observations:
        x, P = F @ x, F @ P @ F.T + Q
        S = H @ P @ H.T + R
        K = P @ H.T @ torch.linalg.inv(S)
        x = x + K @ (z.view(1, 1) - H @ x)
        P = (torch.eye(2, dtype=torch.float64) - K @ H) @ P
    return x.squeeze()


def metropolis(steps=400):
    torch.manual_seed(0)
    log_p = lambda v: -0.5 * ((v - 2.0) / 0.5) ** 2  # noqa: E731
    v, samples = torch.tensor(0.0), []
    for _ in range(steps):
        proposal = v + 0.8 * torch.randn(())
        if torch.log(torch.rand(())) < log_p(proposal) - log_p(v):
            v = proposal
        samples.append(v.item())
    return torch.tensor(samples[100:])


def main():
    X, y = data()
    mu, labels, likelihood = gaussian_mixture(X)
    cm, f1, errors = confusion(y, labels, 2)
    knn = nearest_neighbours(X, y, torch.tensor([[3.0, 3.0], [-2.0, 0.0]], dtype=torch.float64))
    share = principal_components(X)
    w = regression(X)
    z = torch.arange(20.0, dtype=torch.float64) * 0.5 + torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, 20))
    position, velocity = kalman(z)
    samples = metropolis()
    hist = torch.histc(X[:, 0], bins=5, min=-5, max=5)
    values, counts = labels.unique(return_counts=True)
    top = torch.trapezoid(torch.sin(torch.linspace(0, np.pi, 101, dtype=torch.float64)), dx=np.pi / 100)
    print(cm, f1, share, w, position, velocity, samples.mean())
    assert f1 > 0.95 and errors < 6
    assert knn.tolist() == [0, 1]
    assert abs(samples.mean() - 2) < 0.4
    assert torch.quantile(X[:, 0], torch.tensor([0.1, 0.9], dtype=torch.float64)).diff().item() > 0
    return {
        "exact_likelihood": likelihood,
        "exact_mu": mu.sum().item(),
        "exact_cm": str(cm),
        "exact_share": share[0].item(),
        "exact_w": w.abs().sum().item(),
        "exact_velocity": velocity.item(),
        "exact_hist": str(hist.tolist()),
        "exact_counts": str(counts.tolist()),
        "exact_area": top.item(),
    }


if __name__ == "__main__":
    print(main())
