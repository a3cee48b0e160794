"""A denoising diffusion model in two dimensions: noise schedule, time embedding, training and ancestral sampling."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class SinusoidalPositionEmbeddings(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, time):
        device = time.device
        half_dim = self.dim // 2
        embeddings = math.log(10000) / (half_dim - 1)
        embeddings = torch.exp(torch.arange(half_dim, device=device) * -embeddings)
        embeddings = time[:, None] * embeddings[None, :]
        return torch.cat((embeddings.sin(), embeddings.cos()), dim=-1)


class Denoiser(nn.Module):
    def __init__(self, width=64, time_dim=16):
        super().__init__()
        self.time_mlp = nn.Sequential(SinusoidalPositionEmbeddings(time_dim), nn.Linear(time_dim, width), nn.SiLU())
        self.inp = nn.Linear(2, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.out = nn.Linear(width, 2)

    def forward(self, x, t):
        emb = self.time_mlp(t)
        h = self.inp(x)
        for layer in self.hidden:
            h = h + F.silu(layer(h + emb))
        return self.out(h)


class Diffusion:
    def __init__(self, timesteps, device):
        self.timesteps = timesteps
        self.device = device
        self.betas = torch.linspace(1e-3, 0.2, timesteps, device=device)
        alphas = 1.0 - self.betas
        self.alphas_cumprod = torch.cumprod(alphas, dim=0)
        alphas_cumprod_prev = F.pad(self.alphas_cumprod[:-1], (1, 0), value=1.0)
        self.sqrt_recip_alphas = torch.sqrt(1.0 / alphas)
        self.sqrt_alphas_cumprod = torch.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = torch.sqrt(1.0 - self.alphas_cumprod)
        self.posterior_variance = self.betas * (1.0 - alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)

    @staticmethod
    def extract(a, t, x_shape):
        return a.gather(-1, t).reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))

    def q_sample(self, x_start, t, noise):
        return (
            self.extract(self.sqrt_alphas_cumprod, t, x_start.shape) * x_start
            + self.extract(self.sqrt_one_minus_alphas_cumprod, t, x_start.shape) * noise
        )

    def p_losses(self, model, x_start, t):
        noise = torch.randn_like(x_start)
        return F.smooth_l1_loss(noise, model(self.q_sample(x_start, t, noise), t))

    @torch.no_grad()
    def sample(self, model, n):
        x = torch.randn((n, 2), device=self.device)
        for i in reversed(range(self.timesteps)):
            t = torch.full((n,), i, device=self.device, dtype=torch.long)
            mean = self.extract(self.sqrt_recip_alphas, t, x.shape) * (
                x
                - self.extract(self.betas, t, x.shape)
                * model(x, t)
                / self.extract(self.sqrt_one_minus_alphas_cumprod, t, x.shape)
            )
            if i > 0:
                mean = mean + self.extract(self.posterior_variance, t, x.shape).sqrt() * torch.randn_like(x)
            x = mean
        return x


def main(seed=0):
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    angle = torch.rand(1024) * 2 * math.pi
    data = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(1024, 2)
    loader = DataLoader(TensorDataset(data), batch_size=128, shuffle=True, drop_last=True)
    diffusion = Diffusion(30, device)
    model = Denoiser().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        for (x,) in loader:
            x = x.to(device)
            t = torch.randint(0, diffusion.timesteps, (x.shape[0],), device=device).long()
            loss = diffusion.p_losses(model, x, t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    samples = diffusion.sample(model, 300).cpu()
    radius = samples.norm(dim=1)
    share = ((radius > 0.6) & (radius < 1.4)).float().mean().item()
    first, last = sum(losses[:8]) / 8, sum(losses[-40:]) / 40
    assert last < 0.8 * first, (first, last)
    assert share > 0.6, share
    return {
        "exact_alpha_bar": diffusion.alphas_cumprod.sum().item(),
        "exact_variance": diffusion.posterior_variance.sum().item(),
        "exact_embedding": SinusoidalPositionEmbeddings(8)(torch.tensor([0, 3, 7])).norm().item(),
        "first_loss": first,
        "last_loss": last,
        "share_on_ring": share,
    }


if __name__ == "__main__":
    print(main())
