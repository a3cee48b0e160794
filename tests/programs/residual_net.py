"""A pre-activation residual network on a smooth regression task, with BatchNorm1d and LayerNorm blocks."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


class ResidualBlock(nn.Module):
    expansion: int = 2

    def __init__(self, width: int, norm: type[nn.Module] = nn.BatchNorm1d, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.fc1 = nn.Linear(width, width * self.expansion, bias=False)
        self.norm2 = norm(width * self.expansion)
        self.fc2 = nn.Linear(width * self.expansion, width)
        self.dropout = nn.Dropout(p=dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.fc1(F.relu(self.norm1(x)))
        out = self.fc2(self.dropout(F.relu(self.norm2(out))))
        out += identity
        return out


class ResNet(nn.Module):
    def __init__(self, in_features: int, width: int, depth: int, norm: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.stem = nn.Linear(in_features, width)
        self.blocks = nn.Sequential(*[ResidualBlock(width, norm, dropout=0.05) for _ in range(depth)])
        self.head = nn.Sequential(norm(width), nn.ReLU(), nn.Linear(width, 1))
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
            elif isinstance(m, (nn.BatchNorm1d, nn.LayerNorm)):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)
        for block in self.blocks:
            nn.init.zeros_(block.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x))).squeeze(-1)


def fit(norm, device):
    x = torch.rand(768, 3) * 2 - 1
    y = torch.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * torch.cos(2 * x[:, 1])
    loader = DataLoader(TensorDataset(x[:640], y[:640]), batch_size=64, shuffle=True, drop_last=True)
    x_test, y_test = x[640:].to(device), y[640:].to(device)

    model = ResNet(3, 32, 3, norm).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
    for _ in range(15):
        model.train()
        for xb, yb in loader:
            xb, yb = xb.to(device, non_blocking=True), yb.to(device, non_blocking=True)
            loss = F.mse_loss(model(xb), yb)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        scheduler.step()
    model.eval()
    with torch.inference_mode():
        pred = model(x_test)
        mse = F.mse_loss(pred, y_test).item()
        r2 = 1 - mse / y_test.var(unbiased=False).item()
    return model, r2


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, r2_batch = fit(nn.BatchNorm1d, device)
    _, r2_layer = fit(nn.LayerNorm, device)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert r2_batch > 0.85, r2_batch
    assert r2_layer > 0.85, r2_layer
    buffers = dict(model.named_buffers())
    assert buffers["blocks.0.norm1.running_mean"].shape == torch.Size([32])
    assert buffers["blocks.0.norm1.num_batches_tracked"].item() == 150
    assert "blocks.2.norm2.running_var" in model.state_dict()
    return {"exact_parameters": float(count), "r2_batch_norm": r2_batch, "r2_layer_norm": r2_layer}


if __name__ == "__main__":
    print(main())
