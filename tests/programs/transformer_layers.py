"""Library transformers: MultiheadAttention and TransformerEncoder with masks and positional encoding on a small task."""

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.0, max_len=50):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_len, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return self.dropout(x + self.pe[:, : x.size(1)])


class MajorityClassifier(nn.Module):
    """Which of the symbols 1..3 stands most often in a padded sequence?"""

    def __init__(self, vocab=4, d_model=32, nhead=4, layers=1):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model, padding_idx=0)
        self.pos = PositionalEncoding(d_model)
        layer = nn.TransformerEncoderLayer(d_model, nhead, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=layers, enable_nested_tensor=False)
        self.head = nn.Linear(d_model, vocab - 1)

    def forward(self, tokens):
        padding = tokens == 0
        x = self.pos(self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim))
        x = self.encoder(x, src_key_padding_mask=padding)
        x = x.masked_fill(padding.unsqueeze(-1), 0.0).sum(1) / (~padding).sum(1, keepdim=True)
        return self.head(x)


def batch(n, length=9):
    tokens = torch.randint(1, 4, (n, length))
    lengths = torch.randint(4, length + 1, (n, 1))
    tokens = tokens.masked_fill(torch.arange(length) >= lengths, 0)
    counts = F.one_hot(tokens, 4).sum(1)[:, 1:]
    return tokens, counts.argmax(1)


def exact_attention():
    rng = np.random.default_rng(12)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for p in attention.parameters():
        p.data = torch.tensor(rng.normal(scale=0.4, size=p.shape), dtype=torch.float32)
    x = torch.tensor(rng.normal(size=(2, 5, 8)), dtype=torch.float32, requires_grad=True)
    causal = torch.triu(torch.full((5, 5), float("-inf")), diagonal=1)
    out, weights = attention(x, x, x, attn_mask=causal)
    assert weights.shape == (2, 5, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 5), atol=1e-6)
    out.pow(2).sum().backward()

    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (t.reshape(2, 5, 2, 4).transpose(1, 2) for t in (q, k, v))
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    by_hand = attention.out_proj(heads.transpose(1, 2).reshape(2, 5, 8))
    assert torch.allclose(by_hand, out, atol=1e-5)
    return out.sum().item(), x.grad.norm().item(), weights.pow(2).sum().item()


def main(seed=0):
    torch.manual_seed(seed)
    out, gradient, weights = exact_attention()
    model = MajorityClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        tokens, labels = batch(64)
        loss = F.cross_entropy(model(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        tokens, labels = batch(300)
        accuracy = (model(tokens).argmax(1) == labels).float().mean().item()
    assert accuracy > 0.75, accuracy
    assert losses[-1] < losses[0]
    count = sum(p.numel() for p in model.parameters())
    return {
        "exact_out": out,
        "exact_gradient": gradient,
        "exact_weights": weights,
        "exact_parameters": float(count),
        "accuracy": accuracy,
    }


if __name__ == "__main__":
    print(main())
