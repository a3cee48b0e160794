"""A generative adversarial network with two optimisers learns a shifted Gaussian."""

import torch
import torch.nn as nn

LATENT = 4


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(LATENT, 32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(32, 32),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(32, 2),
        )

    def forward(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(2, 64),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.1),
            nn.Linear(64, 32),
            nn.LeakyReLU(0.2),
            nn.Linear(32, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.model(x)


def weights_init(m):
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight.data, 0.0, 0.15)
        nn.init.constant_(m.bias.data, 0)


def real_samples(n, device):
    mean = torch.tensor([2.0, -1.0], device=device)
    return torch.randn(n, 2, device=device) * 0.5 + mean


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    G, D = Generator().to(device), Discriminator().to(device)
    G.apply(weights_init)
    D.apply(weights_init)
    criterion = nn.BCELoss()
    optimizer_G = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))

    fixed_noise = torch.randn(500, LATENT, device=device)
    with torch.no_grad():
        distance_before = (G(fixed_noise).mean(0) - torch.tensor([2.0, -1.0], device=device)).norm().item()

    batch_size = 64
    real_label = torch.full((batch_size, 1), 0.9, device=device)
    ones = torch.ones(batch_size, 1, device=device)
    fake_label = torch.zeros(batch_size, 1, device=device)
    means = []
    for step in range(400):
        # 1: maximise log D(x) + log(1 − D(G(z)))
        D.zero_grad()
        loss_real = criterion(D(real_samples(batch_size, device)), real_label)
        loss_real.backward()
        fake = G(torch.randn(batch_size, LATENT, device=device))
        loss_fake = criterion(D(fake.detach()), fake_label)
        loss_fake.backward()
        errD = loss_real + loss_fake
        optimizer_D.step()

        # 2: maximise log D(G(z)), the discriminator's weights left alone
        for p in D.parameters():
            p.requires_grad_(False)
        G.zero_grad()
        errG = criterion(D(fake), ones)
        errG.backward()
        optimizer_G.step()
        for p in D.parameters():
            p.requires_grad_(True)

        if step >= 200 and step % 10 == 0:
            with torch.no_grad():
                means.append(G(fixed_noise).mean(dim=0).cpu())
        if step % 100 == 0:
            print("[%d/400] Loss_D: %.4f Loss_G: %.4f" % (step, errD.item(), errG.item()))

    mean = torch.stack(means).mean(dim=0)
    distance = (mean - torch.tensor([2.0, -1.0])).norm().item()
    assert all(p.grad is not None for p in D.parameters())
    assert distance < 0.4 * distance_before, (distance_before, distance)
    return {"before": distance_before, "after": distance, "loss_d": errD.item(), "loss_g": errG.item()}


if __name__ == "__main__":
    print(main())
