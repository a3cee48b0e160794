"""Every common loss on fixed numbers: weights, label smoothing, ignore_index, reductions, soft labels, hand-written ones."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class FocalLoss(nn.Module):
    def __init__(self, gamma=2.0, alpha=None):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha", alpha)

    def forward(self, logits, target):
        log_p = F.log_softmax(logits, dim=1)
        ce = F.nll_loss(log_p, target, weight=self.alpha, reduction="none")
        p_t = log_p.gather(1, target.view(-1, 1)).squeeze(1).exp()
        return ((1 - p_t) ** self.gamma * ce).mean()


class DiceLoss(nn.Module):
    def __init__(self, smooth=1.0):
        super().__init__()
        self.smooth = smooth

    def forward(self, inputs, targets):
        inputs = torch.sigmoid(inputs).view(-1)
        targets = targets.view(-1)
        intersection = (inputs * targets).sum()
        return 1 - (2.0 * intersection + self.smooth) / (inputs.sum() + targets.sum() + self.smooth)


def smoothed_by_hand(logits, target, eps):
    n = logits.size(1)
    true = torch.full_like(logits, eps / n)
    true.scatter_(1, target.unsqueeze(1), 1 - eps + eps / n)
    return torch.mean(torch.sum(-true * F.log_softmax(logits, dim=1), dim=1))


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(8)
    logits_np = rng.normal(size=(10, 4)).astype(np.float32)
    target = torch.from_numpy(rng.integers(0, 4, size=10))
    class_weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    soft = torch.softmax(torch.tensor(rng.normal(size=(10, 4)), dtype=torch.float32), dim=1)
    binary = torch.from_numpy(rng.integers(0, 2, size=(10, 4)).astype(np.float32))
    real = torch.tensor(rng.normal(size=(10, 4)), dtype=torch.float32)
    ignored = target.clone()
    ignored[::3] = -100
    pad = target.clone()
    pad[2:4] = 0

    losses = {
        "cross_entropy": lambda x: nn.CrossEntropyLoss()(x, target),
        "weighted": lambda x: nn.CrossEntropyLoss(weight=class_weight)(x, target),
        "smoothed": lambda x: F.cross_entropy(x, target, label_smoothing=0.1),
        "smoothed_weighted": lambda x: F.cross_entropy(x, target, weight=class_weight, label_smoothing=0.2),
        "ignored": lambda x: F.cross_entropy(x, ignored),
        "ignored_sum": lambda x: nn.CrossEntropyLoss(ignore_index=0, reduction="sum")(x, pad),
        "unreduced": lambda x: (F.cross_entropy(x, target, reduction="none") * torch.arange(10)).sum(),
        "soft_labels": lambda x: F.cross_entropy(x, soft),
        "sequence": lambda x: F.cross_entropy(x.view(5, 2, 4).transpose(1, 2), target.view(5, 2)),
        "nll": lambda x: nn.NLLLoss(weight=class_weight)(nn.LogSoftmax(dim=1)(x), target),
        "mse": lambda x: F.mse_loss(x, real),
        "l1": lambda x: F.l1_loss(x, real, reduction="sum"),
        "smooth_l1": lambda x: F.smooth_l1_loss(x, real, beta=0.5),
        "huber": lambda x: nn.HuberLoss(delta=0.7)(x, real),
        "bce": lambda x: nn.BCELoss()(torch.sigmoid(x), binary),
        "bce_logits": lambda x: F.binary_cross_entropy_with_logits(x, binary, pos_weight=class_weight),
        "bce_weight": lambda x: nn.BCEWithLogitsLoss(weight=class_weight)(x, binary),
        "kl": lambda x: F.kl_div(F.log_softmax(x, dim=1), soft, reduction="batchmean"),
        "kl_log_target": lambda x: nn.KLDivLoss(reduction="sum", log_target=True)(x.log_softmax(-1), soft.log()),
        "focal": lambda x: FocalLoss(alpha=class_weight)(x, target),
        "dice": lambda x: DiceLoss()(x, binary),
        "hinge": lambda x: torch.clamp(1 - x * (2 * binary - 1), min=0).mean(),
        "log_cosh": lambda x: torch.log(torch.cosh(x - real)).mean(),
        "quantile": lambda x: torch.max(0.9 * (real - x), -0.1 * (real - x)).mean(),
        "rmse": lambda x: torch.sqrt(nn.MSELoss()(x, real) + 1e-8),
        "cosine": lambda x: (1 - F.cosine_similarity(x, real, dim=1)).mean(),
        "entropy": lambda x: -(x.softmax(1) * x.log_softmax(1)).sum(1).mean(),
        "l2_and_l1_penalty": lambda x: 0.01 * x.pow(2).sum() + 0.1 * x.abs().sum(),
    }
    result = {}
    for name, loss_fn in losses.items():
        x = torch.tensor(logits_np, requires_grad=True)
        loss = loss_fn(x)
        assert loss.ndim == 0, name
        loss.backward()
        assert torch.isfinite(x.grad).all(), name
        result["exact_" + name] = loss.item()
        result["exact_" + name + "_gradient"] = x.grad.norm().item()

    logits = torch.from_numpy(logits_np)
    assert torch.allclose(smoothed_by_hand(logits, target, 0.1), F.cross_entropy(logits, target, label_smoothing=0.1))
    picked = -logits.log_softmax(1)[torch.arange(10), target].mean()
    assert torch.isclose(picked, F.cross_entropy(logits, target))

    # gradient of cross entropy with respect to the logits: (softmax − one-hot) / n
    x = logits.clone().requires_grad_()
    F.cross_entropy(x, target).backward()
    by_hand = (F.softmax(logits, 1) - F.one_hot(target, 4)) / 10
    assert torch.allclose(x.grad, by_hand, atol=1e-6)
    return result


if __name__ == "__main__":
    print(main())
