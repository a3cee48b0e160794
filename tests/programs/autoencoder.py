"""A denoising autoencoder compresses correlated signals; its code is compared with what it must keep."""

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


class AutoEncoder(nn.Module):
    def __init__(self, n_features, n_latent):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_features, 32),
            nn.SELU(),
            nn.Linear(32, 16),
            nn.SiLU(),
            nn.Linear(16, n_latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(n_latent, 16),
            nn.Softplus(),
            nn.Linear(16, 32),
            nn.PReLU(),
            nn.Linear(32, n_features),
            nn.Hardtanh(-3, 3),
        )

    def forward(self, x):
        encoded = self.encoder(x)
        decoded = self.decoder(encoded)
        return encoded, decoded


def signals(n, length, rng):
    t = np.linspace(0, 1, length)
    phase, amplitude = rng.uniform(0, 2 * np.pi, (n, 1)), rng.uniform(0.5, 1.5, (n, 1))
    return amplitude * np.sin(2 * np.pi * t[None, :] + phase)


def main(seed=0):
    np.random.seed(seed)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = signals(640, 20, np.random.default_rng(seed))
    train_x = torch.Tensor(data[:512])
    test_x = torch.FloatTensor(data[512:])
    train_loader = DataLoader(dataset=TensorDataset(train_x), batch_size=64, shuffle=True)

    model = AutoEncoder(20, 2).to(device)
    criterion = nn.L1Loss()
    optimizer = optim.NAdam(model.parameters(), lr=5e-3)
    train_losses = []
    for epoch in range(30):
        epoch_loss = []
        for (batch,) in train_loader:
            batch = batch.to(device)
            noisy = batch + 0.05 * torch.randn(batch.shape, device=device)
            _, reconstructed = model(noisy)
            loss = criterion(reconstructed, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch_loss.append(loss.detach().cpu().numpy())
        train_losses.append(np.mean(epoch_loss))
        if (epoch + 1) % 10 == 0:
            print(f"Epoch {epoch + 1:3d}/30 - loss: {train_losses[-1]:.4f}")

    model.eval()
    with torch.no_grad():
        codes, reconstructed = model(test_x.to(device))
    codes = codes.cpu().numpy()
    errors = (reconstructed.cpu() - test_x).abs().mean(dim=1)
    threshold = errors.mean() + 3 * errors.std()
    anomaly = torch.ones(1, 20) * 2.5 * torch.tensor([1.0, -1.0]).repeat(10)
    with torch.no_grad():
        anomaly_error = (model(anomaly.to(device))[1].cpu() - anomaly).abs().mean().item()
    assert codes.shape == (128, 2)
    assert isinstance(codes, np.ndarray)
    assert train_losses[-1] < 0.5 * train_losses[0]
    assert anomaly_error > threshold
    return {
        "first": float(train_losses[0]),
        "last": float(train_losses[-1]),
        "threshold": threshold.item(),
        "anomaly_error": anomaly_error,
        "code_range": float(np.ptp(codes)),
    }


if __name__ == "__main__":
    print(main())
