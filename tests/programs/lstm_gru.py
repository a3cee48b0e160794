"""Recurrent layers: LSTM and GRU on sine waves and tags; cells in a loop; a small encoder-decoder with attention."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Forecaster(nn.Module):
    def __init__(self, hidden_size=24, num_layers=2):
        super().__init__()
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.lstm = nn.LSTM(1, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, 1)

    def forward(self, x):
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size, device=x.device)
        c0 = torch.zeros_like(h0)
        out, (hn, _) = self.lstm(x, (h0, c0))
        assert torch.equal(out[:, -1], hn[-1])
        return self.fc(out[:, -1, :])


class Tagger(nn.Module):
    """Marks each symbol that stands between a 1 before it and a 1 after it: needs both directions."""

    def __init__(self, vocab=4, hidden=16):
        super().__init__()
        self.embedding = nn.Embedding(vocab, 8, padding_idx=0)
        self.gru = nn.GRU(8, hidden, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * hidden, 2)

    def forward(self, tokens):
        states, _ = self.gru(self.embedding(tokens))
        return self.out(states)


class Seq2Seq(nn.Module):
    def __init__(self, vocab, hidden=32):
        super().__init__()
        self.embedding = nn.Embedding(vocab + 1, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.cell = nn.GRUCell(2 * hidden, hidden)
        self.out = nn.Linear(2 * hidden, vocab)
        self.start = vocab

    def forward(self, source, target=None):
        memory, h = self.encoder(self.embedding(source))
        h = h.squeeze(0)
        token = torch.full((source.size(0),), self.start, dtype=torch.long, device=source.device)
        context = torch.zeros_like(h)
        logits = []
        for t in range(source.size(1)):
            h = self.cell(torch.cat([self.embedding(token), context], dim=1), h)
            weights = F.softmax(torch.bmm(memory, h.unsqueeze(2)).squeeze(2), dim=1)
            context = torch.bmm(weights.unsqueeze(1), memory).squeeze(1)
            step = self.out(torch.cat([h, context], dim=1))
            logits.append(step)
            token = target[:, t] if target is not None else step.argmax(1)
        return torch.stack(logits, dim=1)


def exact_layers():
    """The layers on fixed weights, and the cells stepped by hand, give the same numbers."""
    rng = np.random.default_rng(9)
    lstm, gru = nn.LSTM(3, 4), nn.GRU(3, 4, num_layers=2)
    cell = nn.LSTMCell(3, 4)
    for module in (lstm, gru):
        for p in module.parameters():
            p.data = torch.tensor(rng.normal(scale=0.5, size=p.shape), dtype=torch.float32)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in lstm.state_dict().items()})
    x = torch.tensor(rng.normal(size=(5, 2, 3)), dtype=torch.float32, requires_grad=True)
    out, (h, c) = lstm(x)
    hx, cx = torch.zeros(2, 4), torch.zeros(2, 4)
    for t in range(x.size(0)):
        hx, cx = cell(x[t], (hx, cx))
    assert torch.allclose(hx, h[0], atol=1e-6)
    assert torch.allclose(cx, c[0], atol=1e-6)
    gru_out, gru_h = gru(x)
    assert gru_h.shape == (2, 2, 4)
    (out.sum() + gru_out.pow(2).sum()).backward()
    return out.sum().item(), gru_out.sum().item(), x.grad.norm().item(), lstm.weight_hh_l0.grad.norm().item()


def forecast():
    t = torch.arange(0, 40, 0.2)
    wave = torch.sin(t) + 0.3 * torch.sin(2.5 * t)
    windows = wave.unfold(0, 13, 1)
    x, y = windows[:, :-1].unsqueeze(-1), windows[:, -1:]
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        idx = torch.randperm(len(x))[:64]
        loss = F.mse_loss(model(x[idx]), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return F.mse_loss(model(x), y).item() / y.var().item()


def tag():
    model = Tagger()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        tokens = torch.randint(1, 4, (32, 8))
        one = F.pad((tokens == 1).float(), (1, 1))
        labels = (one[:, :-2] * one[:, 2:]).long()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.embedding.weight[0].abs().sum() == 0
    return (model(tokens).argmax(-1) == labels).float().mean().item()


def translate():
    model = Seq2Seq(vocab=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(120):
        source = torch.randint(0, 5, (32, 4))
        target = source.flip(dims=[1])
        loss = F.cross_entropy(model(source, target).transpose(1, 2), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        right = (model(source).argmax(-1) == target).float().mean().item()
    return losses[0], losses[-1], right


def main(seed=0):
    torch.manual_seed(seed)
    out, gru_out, dx, dw = exact_layers()
    relative_error = forecast()
    tag_accuracy = tag()
    first, last, right = translate()
    assert relative_error < 0.2, relative_error
    assert tag_accuracy > 0.9, tag_accuracy
    assert last < 0.7 * first, (first, last)
    return {
        "exact_lstm": out,
        "exact_gru": gru_out,
        "exact_dx": dx,
        "exact_dw": dw,
        "forecast_error": relative_error,
        "tag_accuracy": tag_accuracy,
        "translation": right,
    }


if __name__ == "__main__":
    print(main())
