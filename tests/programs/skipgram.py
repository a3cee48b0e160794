"""Word embeddings: skip-gram with negative sampling on a toy corpus; nearest words by cosine similarity."""

import random
from collections import Counter

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

TEMPLATES = [
    ("the {} chased the {} around the garden", ["cat", "dog", "puppy"]),
    ("{} and {} are ripe and sweet fruit", ["apple", "pear", "plum"]),
    ("a {} or a {} drives fast along that road", ["car", "truck", "van"]),
]


def corpus(n):
    sentences = []
    for _ in range(n):
        text, words = random.choice(TEMPLATES)
        sentences.append(text.format(*random.sample(words, 2)).split())
    return sentences


class SkipGramDataset(Dataset):
    def __init__(self, sentences, window=2):
        counts = Counter(word for sentence in sentences for word in sentence)
        self.vocab = sorted(counts)
        self.stoi = {w: i for i, w in enumerate(self.vocab)}
        freq = torch.tensor([counts[w] for w in self.vocab], dtype=torch.float)
        self.noise = freq.pow(0.75) / freq.pow(0.75).sum()
        self.pairs = []
        for sentence in sentences:
            ids = [self.stoi[w] for w in sentence]
            for i, centre in enumerate(ids):
                for j in range(max(0, i - window), min(len(ids), i + window + 1)):
                    if j != i:
                        self.pairs.append((centre, ids[j]))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        return self.pairs[i]


class SkipGram(nn.Module):
    def __init__(self, vocab_size, dim):
        super().__init__()
        self.centre = nn.Embedding(vocab_size, dim)
        self.context = nn.Embedding(vocab_size, dim)
        nn.init.uniform_(self.centre.weight, -0.5 / dim, 0.5 / dim)
        self.context.weight.data.uniform_(-0.1, 0.1)

    def forward(self, centre, context, negatives):
        v = self.centre(centre)
        positive = (v * self.context(context)).sum(dim=1)
        negative = torch.bmm(self.context(negatives), v.unsqueeze(2)).squeeze(2)
        return -(F.logsigmoid(positive) + F.logsigmoid(-negative).sum(1)).mean()


def most_similar(model, dataset, word, k=2):
    emb = model.centre.weight.detach()
    query = emb[dataset.stoi[word]]
    sims = F.cosine_similarity(query.unsqueeze(0), emb, dim=1)
    values, indices = sims.topk(k + 1)
    assert values[0].item() > 0.99
    return [dataset.vocab[i] for i in indices.tolist() if dataset.vocab[i] != word][:k]


def main(seed=0):
    torch.manual_seed(seed)
    random.seed(seed)
    dataset = SkipGramDataset(corpus(120))
    loader = DataLoader(dataset, batch_size=128, shuffle=True)
    model = SkipGram(len(dataset.vocab), 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(8):
        total = 0.0
        for centre, context in loader:
            negatives = torch.multinomial(dataset.noise, centre.numel() * 4, replacement=True).view(-1, 4)
            loss = model(centre, context, negatives)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
    groups = [{"cat", "dog", "puppy"}, {"apple", "pear", "plum"}, {"car", "truck", "van"}]
    hits = sum(len(set(most_similar(model, dataset, word)) & group) for group in groups for word in group)
    print("cat:", most_similar(model, dataset, "cat"), "apple:", most_similar(model, dataset, "apple"))
    assert losses[-1] < 0.85 * losses[0], losses
    assert hits >= 9, hits
    return {"first_loss": losses[0], "last_loss": losses[-1], "neighbours_right": float(hits)}


if __name__ == "__main__":
    print(main())
