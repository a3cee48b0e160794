"""A variational autoencoder on binary bar images: reparameterisation, KL term, sampling and interpolation."""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torch.utils.data


def bars(n, size=6):
    """Images with one horizontal or one vertical bar each."""
    images = torch.zeros(n, 1, size, size)
    rows = torch.randint(0, size, (n,))
    vertical = torch.rand(n) < 0.5
    for i in range(n):
        if vertical[i]:
            images[i, 0, :, rows[i]] = 1.0
        else:
            images[i, 0, rows[i], :] = 1.0
    return images


class VAE(nn.Module):
    def __init__(self, pixels, hidden=64, latent=4):
        super().__init__()
        self.pixels = pixels
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, self.pixels))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x.view(x.size(0), -1), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld, bce, kld


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = bars(640)
    loader = torch.utils.data.DataLoader(images, batch_size=64, shuffle=True)
    model = VAE(36).to(device)
    optimizer = optim.Adam(model.parameters(), lr=4e-3)
    history = []
    for _ in range(25):
        train_loss = 0
        for data in loader:
            data = data.to(device)
            optimizer.zero_grad()
            recon_batch, mu, logvar = model(data)
            loss, bce, kld = loss_function(recon_batch, data, mu, logvar)
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
        history.append(train_loss / len(loader.dataset))

    with torch.no_grad():
        model.eval()
        sample = model.decode(torch.randn(16, 4).to(device)).cpu().view(16, 1, 6, 6)
        mu, _ = model.encode(images[:2].to(device).flatten(1))
        weights = torch.linspace(0, 1, 5, device=device).unsqueeze(1)
        between = model.decode(torch.lerp(mu[0], mu[1], weights))
    assert sample.min() >= 0
    assert sample.max() <= 1
    assert between.size() == torch.Size([5, 36])
    assert kld.item() > 0
    assert history[-1] < 0.75 * history[0], history
    return {"first_loss": history[0], "last_loss": history[-1], "bce": bce.item(), "kld": kld.item()}


if __name__ == "__main__":
    print(main())
