"""Differentially private SGD: gradients per sample by vmap, clipped to a norm each, and noise; an ensemble beside it."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, stack_module_state, vmap


def blobs(n, generator):
    y = torch.arange(n) % 3
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    return centres[y] + 0.5 * torch.randn(n, 2, generator=generator), y


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(2, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


def sample_loss(model, params, x, y):
    logits = functional_call(model, params, (x.unsqueeze(0),))
    return F.cross_entropy(logits, y.unsqueeze(0))


def private_step(model, x, y, lr, clip, noise, generator):
    params = {name: p.detach() for name, p in model.named_parameters()}
    per_sample = vmap(grad_and_value(lambda p, a, b: sample_loss(model, p, a, b)), in_dims=(None, 0, 0))
    grads, losses = per_sample(params, x, y)
    squares = torch.stack([g.flatten(1).pow(2).sum(1) for g in grads.values()])
    factors = (clip / (squares.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            clipped = torch.einsum("n,n...->...", factors, grads[name])
            drawn = noise * clip * torch.randn(p.shape, generator=generator)
            p -= lr * (clipped + drawn) / len(x)
    return losses.mean().item(), squares.sum(0).sqrt()


def main():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    x, y = blobs(240, generator)
    model = Net()
    losses = []
    for _ in range(120):
        loss, norms = private_step(model, x, y, lr=2.0, clip=0.5, noise=0.3, generator=generator)
        losses.append(loss)
    accuracy = (model(x).argmax(1) == y).float().mean().item()
    assert losses[-1] < 0.4 * losses[0]
    assert accuracy > 0.95

    # The mean of the gradients per sample is the gradient of the mean loss.
    params = {name: p.detach() for name, p in model.named_parameters()}
    grads, _ = vmap(grad_and_value(lambda p, a, b: sample_loss(model, p, a, b)), in_dims=(None, 0, 0))(params, x, y)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    for name, p in model.named_parameters():
        assert torch.allclose(grads[name].mean(0), p.grad, atol=1e-5)

    # An ensemble, all its members trained at once.
    models = [Net() for _ in range(4)]
    params, buffers = stack_module_state(models)
    optimizer = torch.optim.Adam(params.values(), lr=0.05)
    call = vmap(lambda p, b, a: functional_call(models[0], (p, b), (a,)), in_dims=(0, 0, None))
    for _ in range(60):
        logits = call(params, buffers, x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.repeat(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    each = (call(params, buffers, x).argmax(-1) == y).float().mean(1)
    assert each.min() > 0.95

    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    rows = vmap(lambda v: matrix @ v)(torch.eye(2))
    outer = vmap(vmap(torch.mul, in_dims=(None, 0)), in_dims=(0, None), out_dims=1)(
        torch.arange(3.0), torch.arange(4.0)
    )
    return {
        "loss": losses[-1],
        "accuracy": accuracy,
        "largest norm": norms.max().item(),
        "ensemble": each.mean().item(),
        "exact_rows": rows.sum().item(),
        "exact_outer": outer[2, 1].item() + outer.shape[0],
    }


if __name__ == "__main__":
    print(main())
