"""A character language model: embeddings and an MLP over a context window, perplexity, and sampling with temperature."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

text = (
    "how much wood would a woodchuck chuck if a woodchuck could chuck wood. "
    "he would chuck as much wood as a woodchuck could if a woodchuck could chuck wood. "
) * 4

chars = sorted(set(text))
stoi = {ch: i for i, ch in enumerate(chars)}
itos = {i: ch for ch, i in stoi.items()}


def encode(s):
    return [stoi[c] for c in s]


def decode(ids):
    return "".join(itos[int(i)] for i in ids)


class CharMLP(nn.Module):
    def __init__(self, vocab_size, context, n_embd=8, n_hidden=64):
        super().__init__()
        self.context = context
        self.C = nn.Embedding(vocab_size, n_embd)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_embd * context, n_hidden, bias=False),
            nn.BatchNorm1d(n_hidden),
            nn.Tanh(),
            nn.Linear(n_hidden, vocab_size),
        )
        with torch.no_grad():
            self.layers[-1].weight *= 0.1

    def forward(self, idx, targets=None):
        logits = self.layers(self.C(idx))
        return logits, None if targets is None else F.cross_entropy(logits, targets)

    @torch.no_grad()
    def sample(self, prompt, length, temperature=1.0, top_k=None, generator=None):
        self.eval()
        ids = encode(prompt)
        for _ in range(length):
            context = torch.tensor([ids[-self.context :]])
            logits, _ = self(context)
            logits = logits[0] / temperature
            if top_k is not None:
                values, _ = torch.topk(logits, min(top_k, logits.size(-1)))
                logits[logits < values[-1]] = -float("inf")
            probs = torch.softmax(logits, dim=0)
            if temperature < 0.01:
                next_id = torch.argmax(probs).item()
            else:
                next_id = torch.multinomial(probs, 1, generator=generator).item()
            ids.append(next_id)
        self.train()
        return decode(ids)


def main(seed=0):
    torch.manual_seed(seed)
    context = 6
    data = torch.tensor(encode(text), dtype=torch.long)
    windows = data.unfold(0, context + 1, 1)
    x_all, y_all = windows[:, :context], windows[:, context]
    assert decode(x_all[0]) == text[:context]

    model = CharMLP(len(chars), context)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, nesterov=True)
    losses = []
    for step in range(250):
        ix = torch.randint(0, x_all.shape[0], (64,))
        _, loss = model(x_all[ix], y_all[ix])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.log10().item())
        if step == 150:
            for g in optimizer.param_groups:
                g["lr"] *= 0.1

    smooth = torch.tensor(losses).view(-1, 50).mean(1)
    model.eval()
    with torch.no_grad():
        _, loss = model(x_all, y_all)
        perplexity = math.exp(loss.item())
    greedy = model.sample("how much", 12, temperature=0.001)
    sampled = model.sample("a wood", 20, temperature=0.8, top_k=5, generator=torch.Generator().manual_seed(1))
    again = model.sample("a wood", 20, temperature=0.8, top_k=5, generator=torch.Generator().manual_seed(1))
    print(repr(greedy), repr(sampled))
    assert sampled == again
    assert set(sampled) <= set(chars)
    assert smooth[-1] < smooth[0]
    assert perplexity < 2.0, perplexity
    return {"exact_vocabulary": float(len(chars)), "perplexity": perplexity, "greedy": greedy}


if __name__ == "__main__":
    print(main())
