"""Gradients with respect to inputs: saliency, FGSM and PGD attacks, activation maximisation, Jacobian by rows."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def fgsm_attack(x, epsilon, data_grad):
    return torch.clamp(x + epsilon * data_grad.sign(), -3, 3)


def pgd_attack(model, x, y, epsilon, alpha=0.05, steps=10):
    adv = x.clone().detach() + torch.empty_like(x).uniform_(-epsilon, epsilon)
    for _ in range(steps):
        adv.requires_grad_(True)
        loss = F.cross_entropy(model(adv), y)
        grad = torch.autograd.grad(loss, adv)[0]
        adv = adv.detach() + alpha * grad.sign()
        adv = x + torch.clamp(adv - x, min=-epsilon, max=epsilon)
    return adv.detach()


def accuracy(model, x, y):
    with torch.no_grad():
        return model(x).max(1, keepdim=True)[1].eq(y.view(-1, 1)).float().mean().item()


def main(seed=0):
    torch.manual_seed(seed)
    y = torch.randint(0, 2, (400,))
    x = torch.randn(400, 8) * 0.6
    x[:, 0] += (y * 2 - 1).float()
    x[:, 1] -= (y * 2 - 1).float() * 0.8
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval().requires_grad_(False)

    # saliency: the first two inputs carry the information
    inputs = x.clone().requires_grad_(True)
    scores = model(inputs)
    scores.gather(1, y[:, None]).sum().backward()
    saliency = inputs.grad.abs().mean(dim=0)
    assert set(saliency.topk(2).indices.tolist()) == {0, 1}, saliency
    assert all(p.grad is None or not p.requires_grad for p in model.parameters())

    inputs = x.detach().clone()
    inputs.requires_grad = True
    F.nll_loss(F.log_softmax(model(inputs), dim=1), y).backward()
    clean = accuracy(model, x, y)
    fgsm = accuracy(model, fgsm_attack(x, 0.6, inputs.grad.data), y)
    adversarial = pgd_attack(model, x, y, 0.6)
    pgd = accuracy(model, adversarial, y)
    assert (adversarial - x).abs().max() <= 0.6 + 1e-5
    assert clean > 0.9, clean
    assert fgsm < clean - 0.1, (clean, fgsm)
    assert pgd < clean - 0.1, (clean, pgd)

    # activation maximisation: the optimiser's parameter is the input itself
    dream = torch.zeros(1, 8, requires_grad=True)
    optimizer = torch.optim.Adam([dream], lr=0.1)
    for _ in range(50):
        loss = -model(dream)[0, 1] + 0.05 * dream.norm() ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert F.softmax(model(dream), -1)[0, 1] > 0.9

    # a Jacobian, row by row
    point = torch.tensor([0.3, -0.7, 1.1], requires_grad=True)
    out = torch.stack([point.prod(), (point**2).sum(), point[0] * torch.exp(point[1])])
    rows = [torch.autograd.grad(out[i], point, retain_graph=True)[0] for i in range(3)]
    jacobian = torch.stack(rows)
    expected = torch.tensor(
        [[-0.77, 0.33, -0.21], [0.6, -1.4, 2.2], [torch.tensor(-0.7).exp(), 0.3 * torch.tensor(-0.7).exp(), 0.0]]
    )
    assert torch.allclose(jacobian, expected, atol=1e-6)
    assert torch.allclose(torch.autograd.functional.jacobian(lambda p: p**2, torch.ones(2)), 2 * torch.eye(2))
    return {"exact_jacobian": jacobian.norm().item(), "clean": clean, "fgsm": fgsm, "pgd": pgd}


if __name__ == "__main__":
    print(main())
