"""Autograd step by step: gradients of scalars and vectors, then a cubic fitted by hand, by autograd and by optim."""

import math

import numpy as np
import torch


def gradients_of_small_expressions():
    x = torch.tensor(2.0, requires_grad=True)
    y = x**3 + 3 * x
    assert y.grad_fn is not None
    assert x.is_leaf
    assert not y.is_leaf
    y.backward()
    assert x.grad.item() == 15.0
    (x * x).backward()  # gradients accumulate
    assert x.grad == 19.0
    x.grad.zero_()
    assert x.grad == 0
    x.grad = None

    v = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    w = v * 2
    while w.data.norm() < 1000:
        w = w * 2
    w.backward(torch.tensor([0.1, 1.0, 0.0001]))
    scale = (w / v)[0].item()
    assert torch.allclose(v.grad, scale * torch.tensor([0.1, 1.0, 0.0001]))

    a = torch.ones(2, 2, requires_grad=True)
    b = a + 2
    b.retain_grad()
    out = (b * b * 3).mean()
    out.backward(retain_graph=True)
    out.backward()
    assert torch.equal(a.grad, torch.full((2, 2), 9.0))
    assert torch.equal(b.grad, a.grad)

    p = torch.tensor([1.0, 4.0], requires_grad=True)
    q = torch.tensor([2.0, 0.5], requires_grad=True)
    dp, dq = torch.autograd.grad((p.sqrt() * q.exp()).sum(), [p, q])
    assert p.grad is None
    assert q.grad is None
    return torch.cat([v.grad, a.grad.flatten(), dp, dq])


def gradient_can_be_switched_off():
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        y = x * 2
    assert not y.requires_grad
    z = (x * 2).detach()
    assert not z.requires_grad
    with torch.set_grad_enabled(False):
        assert not (x + 1).requires_grad
        with torch.enable_grad():
            assert (x + 1).requires_grad
    assert torch.is_grad_enabled()
    try:
        z.sum().backward()
    except RuntimeError as error:
        return str(type(error).__name__)
    raise AssertionError("backward without a graph must fail")


def cubic_by_hand(x, y, steps=300, lr=1e-6):
    a, b, c, d = 0.1, 0.2, -0.1, 0.05
    for _ in range(steps):
        y_pred = a + b * x + c * x**2 + d * x**3
        grad_y_pred = 2.0 * (y_pred - y)
        grad_a = grad_y_pred.sum()
        grad_b = (grad_y_pred * x).sum()
        grad_c = (grad_y_pred * x**2).sum()
        grad_d = (grad_y_pred * x**3).sum()
        a -= lr * grad_a
        b -= lr * grad_b
        c -= lr * grad_c
        d -= lr * grad_d
    return torch.stack([a, b, c, d])


def cubic_by_autograd(x, y, steps=300, lr=1e-6):
    dtype = torch.float64
    a = torch.tensor(0.1, dtype=dtype, requires_grad=True)
    b = torch.tensor(0.2, dtype=dtype, requires_grad=True)
    c = torch.tensor(-0.1, dtype=dtype, requires_grad=True)
    d = torch.tensor(0.05, dtype=dtype, requires_grad=True)
    for _ in range(steps):
        loss = (a + b * x + c * x**2 + d * x**3 - y).pow(2).sum()
        loss.backward()
        with torch.no_grad():
            for p in (a, b, c, d):
                p -= lr * p.grad
                p.grad = None
    return torch.stack([a, b, c, d]).detach()


def cubic_by_optim(x, y, steps=300, lr=1e-6):
    features = x.unsqueeze(-1).pow(torch.tensor([1, 2, 3]))
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.2, -0.1, 0.05]], dtype=torch.float64))
        model[0].bias.fill_(0.1)
    loss_fn = torch.nn.MSELoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    first = None
    for _ in range(steps):
        loss = loss_fn(model(features), y)
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer = model[0]
    return torch.cat([layer.bias, layer.weight.view(-1)]).detach(), first, loss.item()


def main(seed=0):
    torch.manual_seed(seed)
    small = gradients_of_small_expressions()
    error = gradient_can_be_switched_off()

    x = torch.linspace(-math.pi, math.pi, 500, dtype=torch.float64)
    y = torch.sin(x)
    by_hand = cubic_by_hand(x, y)
    by_autograd = cubic_by_autograd(x, y)
    by_optim, first, last = cubic_by_optim(x, y)
    np.testing.assert_allclose(by_hand.numpy(), by_autograd.numpy(), rtol=1e-10)
    np.testing.assert_allclose(by_hand.numpy(), by_optim.numpy(), rtol=1e-10)
    assert last < 0.5 * first, (first, last)

    return {
        "exact_small_sum": small.sum().item(),
        "exact_small_norm": small.norm().item(),
        "exact_error": error,
        "exact_a": by_hand[0].item(),
        "exact_d": by_hand[-1].item(),
        "exact_first_loss": first,
        "exact_last_loss": last,
    }


if __name__ == "__main__":
    print(main())
