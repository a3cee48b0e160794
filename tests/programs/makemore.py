"""Names, letter by letter: counted bigrams, the same as one layer, and an MLP with batch normalisation by hand."""

import numpy as np
import torch
import torch.nn.functional as F

words = (
    "emma olivia ava isabella sophia mia charlotte amelia harper evelyn abigail emily elizabeth mila ella avery sofia "
    "camila aria scarlett victoria madison luna grace chloe penelope layla riley zoey nora lily eleanor hannah lillian"
).split()
chars = sorted(list(set("".join(words))))
stoi = {s: i + 1 for i, s in enumerate(chars)}
stoi["."] = 0
itos = {i: s for s, i in stoi.items()}
V = len(itos)


def bigrams():
    N = torch.zeros((V, V), dtype=torch.int32)
    for w in words:
        chs = ["."] + list(w) + ["."]
        for ch1, ch2 in zip(chs, chs[1:]):
            N[stoi[ch1], stoi[ch2]] += 1
    P = (N + 1).float()
    P /= P.sum(1, keepdim=True)

    g = torch.Generator().manual_seed(2147483647)
    sampled = []
    for _ in range(5):
        out, ix = [], 0
        while True:
            ix = torch.multinomial(P[ix], num_samples=1, replacement=True, generator=g).item()
            if ix == 0 or len(out) > 50:
                break
            out.append(itos[ix])
        sampled.append("".join(out))
    print(sampled)

    log_likelihood, n = 0.0, 0
    for w in words:
        chs = ["."] + list(w) + ["."]
        for ch1, ch2 in zip(chs, chs[1:]):
            logprob = torch.log(P[stoi[ch1], stoi[ch2]])
            log_likelihood += logprob
            n += 1
    return N, (-log_likelihood / n), all(set(s) <= set(chars) for s in sampled)


def one_layer(steps=60):
    xs, ys = [], []
    for w in words:
        chs = ["."] + list(w) + ["."]
        for ch1, ch2 in zip(chs, chs[1:]):
            xs.append(stoi[ch1])
            ys.append(stoi[ch2])
    xs, ys = torch.tensor(xs), torch.tensor(ys)
    num = xs.nelement()
    W = torch.from_numpy(np.random.default_rng(0).standard_normal((V, V)).astype(np.float32))
    W.requires_grad = True
    for _ in range(steps):
        xenc = F.one_hot(xs, num_classes=V).float()
        logits = xenc @ W
        counts = logits.exp()
        probs = counts / counts.sum(1, keepdims=True)
        loss = -probs[torch.arange(num), ys].log().mean() + 0.01 * (W**2).mean()
        W.grad = None
        loss.backward()
        W.data += -10 * W.grad
    return loss


def build_dataset(words, block_size=3):
    X, Y = [], []
    for w in words:
        context = [0] * block_size
        for ch in w + ".":
            ix = stoi[ch]
            X.append(context)
            Y.append(ix)
            context = context[1:] + [ix]
    return torch.tensor(X), torch.tensor(Y)


def mlp(steps=100):
    rng = np.random.default_rng(4)

    def randn(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    X, Y = build_dataset(words)
    n_embd, n_hidden = 10, 32
    C = randn(V, n_embd)
    W1 = randn(n_embd * 3, n_hidden) * (5 / 3) / ((n_embd * 3) ** 0.5)
    W2 = randn(n_hidden, V) * 0.01
    b2 = randn(V) * 0
    bngain = torch.ones((1, n_hidden))
    bnbias = torch.zeros((1, n_hidden))
    bnmean_running = torch.zeros((1, n_hidden))
    bnstd_running = torch.ones((1, n_hidden))
    parameters = [C, W1, W2, b2, bngain, bnbias]
    for p in parameters:
        p.requires_grad = True
    lossi, ud = [], []
    for i in range(steps):
        ix = torch.arange(i * 7, i * 7 + 64) % X.shape[0]
        Xb, Yb = X[ix], Y[ix]
        emb = C[Xb]
        embcat = emb.view(emb.shape[0], -1)
        hpreact = embcat @ W1
        bnmeani = hpreact.mean(0, keepdim=True)
        bnstdi = hpreact.std(0, keepdim=True)
        hpreact = bngain * (hpreact - bnmeani) / bnstdi + bnbias
        with torch.no_grad():
            bnmean_running = 0.95 * bnmean_running + 0.05 * bnmeani
            bnstd_running = 0.95 * bnstd_running + 0.05 * bnstdi
        h = torch.tanh(hpreact)
        logits = h @ W2 + b2
        loss = F.cross_entropy(logits, Yb)
        for p in parameters:
            p.grad = None
        loss.backward()
        lr = 0.5 if i < 80 else 0.05
        for p in parameters:
            p.data += -lr * p.grad
        lossi.append(loss.log10().item())
        with torch.no_grad():
            ud.append([((lr * p.grad).std() / p.data.std()).log10().item() for p in parameters])

    @torch.no_grad()
    def split_loss(x, y):
        embcat = C[x].view(x.shape[0], -1)
        hpreact = bngain * (embcat @ W1 - bnmean_running) / bnstd_running + bnbias
        return F.cross_entropy(torch.tanh(hpreact) @ W2 + b2, y).item()

    means = torch.tensor(lossi).view(-1, 20).mean(1)
    saturated = (h.abs() > 0.97).float().mean().item()
    return means, split_loss(X, Y), saturated, ud


def main():
    N, nll, known = bigrams()
    assert known
    first = one_layer(1)
    trained = one_layer()
    means, loss, saturated, ud = mlp()
    print(f"{nll.item()=} {trained.item()=} {loss=} {saturated=}")
    assert trained < first and means[-1] < means[0] and loss < 2.6 and saturated < 0.5
    return {
        "exact_counts": str(N[0].long()),
        "exact_nll": nll.item(),
        "exact_first": first.item(),
        "trained": trained.item(),
        "exact_ratio": ud[0][0],
        "loss": loss,
    }


if __name__ == "__main__":
    print(main())
