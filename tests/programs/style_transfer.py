"""Style transfer with Gram matrices and L-BFGS, feature losses in the graph; robust regression by L-BFGS."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


def gram_matrix(input):
    a, b, c, d = input.size()
    features = input.view(a * b, c * d)
    G = torch.mm(features, features.t())
    return G.div(a * b * c * d)


class ContentLoss(nn.Module):
    def __init__(self, target):
        super(ContentLoss, self).__init__()
        self.target = target.detach()

    def forward(self, input):
        self.loss = F.mse_loss(input, self.target)
        return input


class StyleLoss(nn.Module):
    def __init__(self, target_feature):
        super(StyleLoss, self).__init__()
        self.target = gram_matrix(target_feature).detach()

    def forward(self, input):
        G = gram_matrix(input)
        self.loss = F.mse_loss(G, self.target)
        return input


class Normalization(nn.Module):
    def __init__(self, mean, std):
        super(Normalization, self).__init__()
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def forward(self, img):
        return (img - self.mean) / self.std


def get_style_model_and_losses(cnn, style_img, content_img):
    model = nn.Sequential(Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    content_losses, style_losses = [], []
    i = 0
    for layer in cnn.children():
        if isinstance(layer, nn.Conv2d):
            i += 1
            name = f"conv_{i}"
        elif isinstance(layer, nn.ReLU):
            name = f"relu_{i}"
            layer = nn.ReLU(inplace=False)
        else:
            raise RuntimeError(f"Unrecognized layer: {layer.__class__.__name__}")
        model.add_module(name, layer)
        if name == "conv_2":
            content_loss = ContentLoss(model(content_img).detach())
            model.add_module(f"content_loss_{i}", content_loss)
            content_losses.append(content_loss)
        if name.startswith("conv"):
            style_loss = StyleLoss(model(style_img).detach())
            model.add_module(f"style_loss_{i}", style_loss)
            style_losses.append(style_loss)
    return model, style_losses, content_losses


def run_style_transfer(steps=40):
    rng = np.random.default_rng(0)
    cnn = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, padding=1))
    for p in cnn.parameters():
        p.data = torch.from_numpy((0.2 * rng.standard_normal(tuple(p.shape))).astype(np.float32))
    content = torch.from_numpy(rng.uniform(0, 1, (1, 3, 12, 12)).astype(np.float32))
    style = torch.from_numpy(rng.uniform(0, 1, (1, 3, 12, 12)).astype(np.float32)) ** 3
    model, style_losses, content_losses = get_style_model_and_losses(cnn, style, content)
    input_img = content.clone()
    input_img.requires_grad_(True)
    model.eval()
    model.requires_grad_(False)
    optimizer = optim.LBFGS([input_img])
    history = []
    while len(history) <= steps:

        def closure():
            with torch.no_grad():
                input_img.clamp_(0, 1)
            optimizer.zero_grad()
            model(input_img)
            style_score = sum(sl.loss for sl in style_losses) * 1e5
            content_score = sum(cl.loss for cl in content_losses)
            loss = style_score + content_score
            loss.backward()
            history.append(loss.item())
            return loss

        optimizer.step(closure)
    with torch.no_grad():
        input_img.clamp_(0, 1)
    assert input_img.min() >= 0 and input_img.max() <= 1
    return history, [name for name, _ in model.named_children()]


def robust_regression():
    rng = np.random.default_rng(1)
    x = np.linspace(-2, 2, 40)
    y = 1.5 * x - 0.5 + 0.05 * rng.standard_normal(40)
    y[::10] += 5  # outliers
    X, y = torch.tensor(np.stack([x, np.ones_like(x)], 1)), torch.tensor(y)
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], line_search_fn="strong_wolfe", max_iter=100, tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        loss = F.huber_loss(X @ w, y, delta=0.1)
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.tolist()


def main():
    history, names = run_style_transfer()
    slope, offset = robust_regression()
    print(history[0], history[-1], slope, offset)
    assert min(history) < history[0] / 3
    assert abs(slope - 1.5) < 0.05 and abs(offset + 0.5) < 0.1
    return {
        "exact_start": history[0],
        "exact_evaluations": float(len(history)),
        "exact_names": " ".join(names),
        "exact_slope": round(slope, 5),
        "end": history[-1],
    }


if __name__ == "__main__":
    print(main())
