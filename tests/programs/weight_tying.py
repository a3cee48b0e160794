"""Weight tying: embedding and output projection share one parameter; a tied autoencoder uses the transpose."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class TiedLM(nn.Module):
    def __init__(self, vocab, dim):
        super().__init__()
        self.encoder = nn.Embedding(vocab, dim)
        self.rnn = nn.Linear(2 * dim, dim)
        self.decoder = nn.Linear(dim, vocab)
        self.decoder.weight = self.encoder.weight
        nn.init.normal_(self.encoder.weight, std=0.3)

    def forward(self, tokens):
        state = tokens.new_zeros((tokens.shape[0], self.encoder.embedding_dim), dtype=self.encoder.weight.dtype)
        outputs = []
        for t in range(tokens.shape[1]):
            state = torch.tanh(self.rnn(torch.cat([self.encoder(tokens[:, t]), state], -1)))
            outputs.append(self.decoder(state))
        return torch.stack(outputs, 1)


class TiedAutoencoder(nn.Module):
    def __init__(self, n, k):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, n))
        nn.init.xavier_uniform_(self.weight)
        self.b1, self.b2 = nn.Parameter(torch.zeros(k)), nn.Parameter(torch.zeros(n))

    def forward(self, x):
        h = F.linear(x, self.weight, self.b1)
        return F.linear(h, self.weight.t(), self.b2)


def exact_tied_gradient():
    """The gradient of a shared parameter is the sum of the gradients of its two uses."""
    rng = np.random.default_rng(4)
    w = torch.tensor(rng.normal(size=(5, 3)), dtype=torch.float32)
    tokens = torch.tensor([[0, 2, 4], [1, 1, 3]])
    shared = w.clone().requires_grad_(True)
    F.cross_entropy((F.embedding(tokens, shared) @ shared.T).permute(0, 2, 1), tokens).backward()
    a, b = w.clone().requires_grad_(True), w.clone().requires_grad_(True)
    F.cross_entropy((F.embedding(tokens, a) @ b.T).permute(0, 2, 1), tokens).backward()
    assert torch.allclose(shared.grad, a.grad + b.grad, atol=1e-6)
    return shared.grad


def main(seed=0):
    torch.manual_seed(seed)
    gradient = exact_tied_gradient()

    model = TiedLM(8, 16)
    assert model.decoder.weight is model.encoder.weight
    names = [n for n, _ in model.named_parameters()]
    assert names == ["encoder.weight", "rnn.weight", "rnn.bias", "decoder.bias"]
    assert "decoder.weight" in model.state_dict()
    assert sum(p.numel() for p in model.parameters()) == 8 * 16 + 32 * 16 + 16 + 8
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    losses = []
    for _ in range(80):
        start = torch.randint(8, (32, 1))
        tokens = (start + torch.arange(7)) % 8
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 8), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert model.decoder.weight is model.encoder.weight
    assert losses[-1] < 0.5 * losses[0], losses[-1]

    basis = torch.randn(3, 10)
    x = torch.randn(200, 3) @ basis
    auto = TiedAutoencoder(10, 3)
    optimizer = torch.optim.Adam(auto.parameters(), lr=0.02)
    errors = []
    for _ in range(150):
        loss = F.mse_loss(auto(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.2 * errors[0], errors[-1]
    return {
        "exact_gradient_sum": gradient.sum().item(),
        "exact_gradient_norm": gradient.norm().item(),
        "loss": losses[-1],
        "reconstruction": errors[-1],
    }


if __name__ == "__main__":
    print(main())
