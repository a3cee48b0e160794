"""Tensor code without a network: k-means, PCA, nearest neighbours, least squares, power iteration, a Gram matrix."""

import numpy as np
import torch


def kmeans(x, k, iterations=20):
    centres = x[:: len(x) // k][:k].clone()
    for _ in range(iterations):
        labels = torch.cdist(x, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, labels, x)
        counts = torch.bincount(labels, minlength=k).clamp(min=1)
        new_centres = sums / counts.unsqueeze(1)
        if torch.allclose(new_centres, centres):
            break
        centres = new_centres
    return labels, centres


def pca(x, k):
    mean = x.mean(dim=0, keepdim=True)
    _, S, Vh = torch.linalg.svd(x - mean, full_matrices=False)
    return (x - mean) @ Vh[:k].T, S**2 / (len(x) - 1)


def power_iteration(a, steps=200):
    v = torch.ones(a.size(0), dtype=a.dtype)
    for _ in range(steps):
        v = a @ v
        v /= torch.linalg.norm(v)
    return torch.dot(v, a.mv(v)), v


def knn_predict(x, y, queries, k=5):
    distances = torch.sqrt(((queries[:, None, :] - x[None, :, :]) ** 2).sum(dim=-1))
    _, nearest = distances.topk(k, largest=False)
    votes = y[nearest]
    return torch.mode(votes, dim=1).values


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(2)
    centres = np.array([[0.0, 0.0, 4.0], [4.0, 0.0, 0.0], [0.0, 4.0, -4.0]])
    truth = np.repeat(np.arange(3), 50)
    x = torch.from_numpy(centres[truth] + rng.normal(scale=0.6, size=(150, 3)))
    y = torch.from_numpy(truth)

    labels, found = kmeans(x, 3)
    contingency = torch.zeros(3, 3, dtype=torch.long)
    for t, p in zip(y, labels, strict=True):
        contingency[t, p] += 1
    purity = contingency.max(dim=1)[0].sum().item() / len(y)
    assert purity == 1.0, contingency

    projected, variances = pca(x, 2)
    covariance = torch.cov(x.T)
    eigenvalue, vector = power_iteration(covariance)
    eigenvalues = torch.linalg.eigvalsh(covariance)
    assert torch.isclose(eigenvalue, variances[0], rtol=1e-4)
    assert torch.allclose(eigenvalues.flip(0), variances)
    assert abs(vector.norm().item() - 1) < 1e-9
    assert torch.allclose(projected.var(dim=0), variances[:2])

    order = torch.from_numpy(rng.permutation(150))
    train, test = order[:120], order[120:]
    predictions = knn_predict(x[train], y[train], x[test])
    accuracy = (predictions == y[test]).double().mean().item()
    assert accuracy == 1.0

    # ordinary least squares by normal equations, by lstsq, and ridge
    A = torch.hstack([x, torch.ones(150, 1, dtype=x.dtype)])
    b = A @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=x.dtype) + 0.01 * torch.from_numpy(rng.normal(size=150))
    normal = torch.linalg.solve(A.T @ A, A.T @ b)
    inverse = torch.linalg.inv(A.T @ A) @ (A.T @ b)
    lstsq = torch.linalg.lstsq(A, b.unsqueeze(1)).solution.squeeze(1)
    ridge = torch.linalg.solve(A.T @ A + 10 * torch.eye(4, dtype=x.dtype), A.T @ b)
    assert torch.allclose(normal, lstsq)
    assert torch.allclose(normal, inverse)
    assert ridge[:3].norm() < normal[:3].norm()

    # Gram matrix with an RBF kernel, standardised columns, outer products, triangular parts
    z = (x - x.mean(0)) / x.std(0, unbiased=True)
    gram = torch.exp(-0.5 * torch.cdist(z, z).pow(2))
    upper = torch.triu(gram, diagonal=1)
    correlation = torch.corrcoef(x.T)
    assert torch.allclose(gram, gram.T)
    assert gram.diagonal().sum().item() == 150
    outer = torch.outer(normal, normal)
    assert torch.linalg.matrix_rank(outer) == 1
    return {
        "exact_purity": purity,
        "exact_centre": found.norm().item(),
        "exact_variance": variances.sum().item(),
        "exact_eigenvalue": eigenvalue.item(),
        "exact_weights": normal.sum().item(),
        "exact_ridge": ridge.sum().item(),
        "exact_gram": upper.sum().item(),
        "exact_trace": torch.trace(outer).item(),
        "exact_determinant": torch.det(covariance).item(),
        "exact_correlation": correlation[0, 1].item(),
    }


if __name__ == "__main__":
    print(main())
