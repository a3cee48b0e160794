"""In-place edits: own SGD under no_grad, weight projections, masks, and the edits that autograd must refuse."""

import numpy as np
import torch
import torch.nn as nn


def own_sgd_with_momentum(x, y):
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.normal(size=(3, 1)))
    w.requires_grad_()
    b = torch.zeros(1, dtype=w.dtype, requires_grad=True)
    velocity = [torch.zeros_like(w), torch.zeros_like(b)]
    losses = []
    for _ in range(60):
        loss = ((x @ w + b - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for p, v in zip([w, b], velocity, strict=True):
                v.mul_(0.9).add_(p.grad, alpha=-0.02)
                p.add_(v)
                p.grad.zero_()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    return w.detach(), b.detach(), losses[-1]


def constrained_weights(x, y):
    """Non-negative weights with unit columns: the projection happens in place after each step."""
    layer = nn.Linear(3, 2, bias=False).double()
    layer.weight.data = torch.tensor([[0.3, 0.6, 0.1], [0.5, -0.2, 0.4]], dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(x).sum(dim=1, keepdim=True) - y).abs().mean().backward()
        optimizer.step()
        with torch.no_grad():
            layer.weight.clamp_(min=0)
            layer.weight /= layer.weight.norm(dim=0, keepdim=True).clamp(min=1e-8)
    assert (layer.weight >= 0).all()
    assert torch.allclose(layer.weight.norm(dim=0), torch.ones(3, dtype=torch.float64))
    return layer.weight.detach()


def pruning(layer):
    mask = layer.weight.abs() > 0.2
    with torch.no_grad():
        layer.weight[~mask] = 0.0
        layer.weight[0, :] *= 2
        layer.weight[1, 1:] -= 0.5
        layer.bias[:] = torch.arange(layer.bias.numel(), dtype=layer.bias.dtype)
        layer.bias.data[-1] = 7.0
    assert layer.weight.requires_grad
    assert layer.weight.is_leaf
    return mask.float().mean().item()


def in_place_on_non_leaves():
    a = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    b = a * 2
    b += 1
    b[1] = 10.0
    b.mul_(3)
    b.sum().backward()
    assert a.grad.tolist() == [6.0, 0.0, 6.0]

    buffer = torch.zeros(2, 3)
    buffer[0] = a * a
    buffer[1, :2] = a[1:]
    a.grad = None
    buffer.sum().backward()
    assert torch.equal(a.grad, torch.tensor([2.0, -3.0, 7.0]))
    return a.grad.sum().item()


def refused_edits():
    messages = []
    a = torch.ones(2, requires_grad=True)
    try:
        a += 1
    except RuntimeError:
        messages.append("leaf")
    y = a.exp()
    y.mul_(2)  # backward of exp needs its output
    try:
        y.sum().backward()
    except RuntimeError:
        messages.append("needed")
    z = (a * a).sum()
    z.backward()
    try:
        z.backward()
    except RuntimeError:
        messages.append("twice")
    return ",".join(messages)


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(11)
    x = torch.from_numpy(rng.normal(size=(40, 3)))
    y = x @ torch.tensor([[1.5], [-2.0], [0.5]], dtype=torch.float64) + 0.7
    w, b, loss = own_sgd_with_momentum(x, y)
    projected = constrained_weights(x, y)

    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 12).reshape(3, 4))
        layer.bias.zero_()
    kept = pruning(layer)

    t = torch.zeros(3, 4)
    t.fill_(2.0)
    t[:, 1] = torch.tensor([1.0, 2.0, 3.0])
    t[t > 2] = -1.0
    t.add_(1).sub_(0.5).div_(2).pow_(2)
    t.masked_fill_(t < 0.1, 9.0)
    assert refused_edits() == "leaf,needed,twice"
    return {
        "exact_w": w.sum().item(),
        "exact_b": b.item(),
        "exact_loss": loss,
        "exact_projected": projected.sum().item(),
        "exact_kept": kept,
        "exact_pruned": layer.weight.sum().item(),
        "exact_bias": layer.bias.sum().item(),
        "exact_chain": t.sum().item(),
        "exact_non_leaf": in_place_on_non_leaves(),
    }


if __name__ == "__main__":
    print(main())
