"""WGAN-GP: a critic whose gradient has norm 1 between real and generated points; and R1 with lazy regularisation."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def set_weights(model, seed):
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        scale = 1.0 / np.sqrt(np.prod(tuple(p.shape)[1:])) if p.dim() > 1 else 0.05
        p.data = torch.from_numpy((scale * rng.standard_normal(tuple(p.shape))).astype(np.float32))
    return model


def circle(rng, n):
    angle = rng.integers(0, 8, n) * np.pi / 4
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * rng.standard_normal((n, 2))
    return torch.from_numpy(points.astype(np.float32))


def gradient_penalty(critic, real, fake, alpha):
    between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = critic(between)
    gradients = torch.autograd.grad(
        outputs=scores,
        inputs=between,
        grad_outputs=torch.ones_like(scores),
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )[0]
    return ((gradients.view(gradients.size(0), -1).norm(2, dim=1) - 1) ** 2).mean()


def wgan(steps, prepare):
    rng = np.random.default_rng(0)
    generator = set_weights(
        nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)), 1
    )
    critic = set_weights(
        nn.Sequential(
            nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.LayerNorm(32), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1)
        ),
        2,
    )
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))

    def critic_step(real, z, alpha):
        of_critic.zero_grad(set_to_none=True)
        fake = generator(z).detach()
        distance = critic(real).mean() - critic(fake).mean()
        penalty = gradient_penalty(critic, real, fake, alpha)
        (10 * penalty - distance).backward()
        of_critic.step()
        return distance.detach(), penalty.detach()

    def generator_step(z):
        of_generator.zero_grad(set_to_none=True)
        critic.zero_grad(set_to_none=True)
        loss = -critic(generator(z)).mean()
        loss.backward()
        of_generator.step()
        return loss.detach()

    critic_step, generator_step = prepare(critic_step), prepare(generator_step)

    def normal():
        return torch.from_numpy(rng.standard_normal((64, 2)).astype(np.float32))

    distances, penalties = [], []
    for _ in range(steps):
        for _ in range(3):
            alpha = torch.from_numpy(rng.random((64, 1)).astype(np.float32))
            distance, penalty = critic_step(circle(rng, 64), normal(), alpha)
        generator_step(normal())
        distances.append(distance.item())
        penalties.append(penalty.item())
    return distances, penalties


def r1(steps, prepare):
    """The penalty of real images alone, through convolution, normalisation and pooling, on every second step."""
    rng = np.random.default_rng(3)
    critic = set_weights(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(0.2),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.GroupNorm(2, 8),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 1),
        ),
        4,
    )
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)

    def step(real, fake):
        optimizer.zero_grad()
        real = real.detach().requires_grad_(True)
        scores = critic(real)
        loss = F.softplus(-scores).mean() + F.softplus(critic(fake)).mean()
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        (loss + 5 * penalty).backward()
        optimizer.step()
        return loss.detach(), penalty.detach()

    step = prepare(step)
    losses = []
    for _ in range(steps):
        real = torch.from_numpy(rng.random((8, 1, 8, 8)).astype(np.float32))
        loss, penalty = step(real, torch.from_numpy(rng.standard_normal((8, 1, 8, 8)).astype(np.float32)))
        losses += [loss.item(), penalty.item()]
    return losses


def main(prepare=lambda step: step):
    distances, penalties = wgan(60, prepare)
    images = r1(8, prepare)
    print(distances[0], distances[-1], penalties[0], penalties[-1])
    assert penalties[-1] < penalties[0]
    return {
        "exact_first_distance": distances[0],
        "exact_first_penalty": penalties[0],
        "exact_first_of_images": images[0],
        "exact_first_penalty_of_images": images[1],
        "end": distances[-1],
        "end_of_images": images[-2],
    }


if __name__ == "__main__":
    print(main())
