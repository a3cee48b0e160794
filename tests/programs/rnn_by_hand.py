"""Recurrent cells written by hand (Elman and GRU) remember the first symbol of a sequence."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class ElmanCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
        nn.init.orthogonal_(self.i2h.weight[:, input_size:].data)

    def forward(self, x, hidden):
        return torch.tanh(self.i2h(torch.cat((x, hidden), dim=1)))


class GRUCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        k = 1 / math.sqrt(hidden_size)
        self.w_ih = nn.Parameter(torch.empty(3 * hidden_size, input_size).uniform_(-k, k))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size).uniform_(-k, k))
        self.b_ih = nn.Parameter(torch.zeros(3 * hidden_size))
        self.b_hh = nn.Parameter(torch.zeros(3 * hidden_size))

    def forward(self, x, h):
        gates_x = x @ self.w_ih.T + self.b_ih
        gates_h = h @ self.w_hh.T + self.b_hh
        r_x, z_x, n_x = gates_x.chunk(3, dim=1)
        r_h, z_h, n_h = gates_h.chunk(3, 1)
        r = torch.sigmoid(r_x + r_h)
        z = torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return (1 - z) * n + z * h


class RNN(nn.Module):
    def __init__(self, cell, classes):
        super().__init__()
        self.cell = cell
        self.h2o = nn.Linear(cell.hidden_size, classes)

    def forward(self, sequence, hidden=None):
        if hidden is None:
            hidden = self.init_hidden(sequence.size(0), sequence.device)
        states = []
        for x in sequence.unbind(dim=1):
            hidden = self.cell(x, hidden)
            states.append(hidden)
        return F.log_softmax(self.h2o(hidden), dim=-1), torch.stack(states, dim=1)

    def init_hidden(self, batch, device):
        return torch.zeros(batch, self.cell.hidden_size, device=device)


def train(model, classes, length, steps):
    optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
    loss_fn = nn.NLLLoss()
    for _ in range(steps):
        symbols = torch.randint(classes, (64, length))
        log_probs, states = model(F.one_hot(symbols, num_classes=classes).float())
        assert states.shape == (64, length, model.cell.hidden_size)
        loss = loss_fn(log_probs, symbols[:, 0])
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        symbols = torch.randint(0, classes, (256, length))
        log_probs, _ = model(F.one_hot(symbols, classes).to(torch.float32))
        return log_probs.argmax(dim=1).eq(symbols[:, 0]).float().mean().item()


def main(seed=0):
    torch.manual_seed(seed)
    classes, length = 4, 6
    elman = train(RNN(ElmanCell(classes, 32), classes), classes, length, 250)
    gru = train(RNN(GRUCell(classes, 32), classes), classes, length, 250)
    assert elman > 0.7, elman
    assert gru > 0.7, gru
    return {"elman_accuracy": elman, "gru_accuracy": gru}


if __name__ == "__main__":
    print(main())
