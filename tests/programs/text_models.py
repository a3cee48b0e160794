"""Texts of unequal length: bags of embeddings with offsets, packed recurrent networks, padding masks, pretrained vectors."""

from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

GOOD = "great fine lovely superb happy".split()
BAD = "awful poor sad dreadful weak".split()
NEUTRAL = "the film was a story of people and time".split()


def make_texts(n, seed):
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        label = int(rng.integers(0, 2))
        words = list(rng.choice(NEUTRAL, rng.integers(2, 8))) + list(rng.choice(BAD if label else GOOD, 2))
        rng.shuffle(words)
        texts.append((label, " ".join(words)))
    return texts


def build_vocab(texts):
    counter = Counter()
    for _, line in texts:
        counter.update(line.split())
    return {word: i for i, word in enumerate(["<pad>", "<unk>"] + sorted(counter))}


def collate_bags(vocab):
    def collate_batch(batch):
        label_list, text_list, offsets = [], [], [0]
        for _label, _text in batch:
            label_list.append(_label)
            processed_text = torch.tensor([vocab.get(w, 1) for w in _text.split()], dtype=torch.int64)
            text_list.append(processed_text)
            offsets.append(processed_text.size(0))
        label_list = torch.tensor(label_list, dtype=torch.int64)
        offsets = torch.tensor(offsets[:-1]).cumsum(dim=0)
        return label_list, torch.cat(text_list), offsets

    return collate_batch


def collate_padded(vocab):
    def collate_batch(batch):
        labels, texts = zip(*batch)
        sequences = [torch.tensor([vocab.get(w, 1) for w in text.split()]) for text in texts]
        lengths = torch.tensor([len(s) for s in sequences])
        return torch.tensor(labels), pad_sequence(sequences, batch_first=True, padding_value=0), lengths

    return collate_batch


class TextClassificationModel(nn.Module):
    def __init__(self, vocab_size, embed_dim, num_class):
        super(TextClassificationModel, self).__init__()
        self.embedding = nn.EmbeddingBag(vocab_size, embed_dim, sparse=False)
        self.fc = nn.Linear(embed_dim, num_class)
        self.init_weights()

    def init_weights(self):
        initrange = 0.5
        self.embedding.weight.data.uniform_(-initrange, initrange)
        self.fc.weight.data.uniform_(-initrange, initrange)
        self.fc.bias.data.zero_()

    def forward(self, text, offsets):
        return self.fc(self.embedding(text, offsets))


class LSTMClassifier(nn.Module):
    def __init__(self, vocab_size, embed_dim, hidden_dim):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.lstm = nn.LSTM(embed_dim, hidden_dim, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * hidden_dim, 1)
        self.fc = nn.Linear(2 * hidden_dim, 2)

    def forward(self, text, lengths):
        self.lstm.flatten_parameters()
        packed = pack_padded_sequence(self.embedding(text), lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, (hidden, cell) = self.lstm(packed)
        output, _ = pad_packed_sequence(output, batch_first=True)
        mask = torch.arange(output.size(1))[None, :] < lengths[:, None]
        scores = self.attention(output).squeeze(-1).masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=1)
        return self.fc((weights.unsqueeze(-1) * output).sum(1)), weights


def train(model, dataloader, criterion, optimizer):
    model.train()
    total_acc, total_count = 0, 0
    for label, text, extra in dataloader:
        optimizer.zero_grad()
        predicted = model(text, extra)
        predicted = predicted[0] if isinstance(predicted, tuple) else predicted
        loss = criterion(predicted, label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        total_acc += (predicted.argmax(1) == label).sum().item()
        total_count += label.size(0)
    return total_acc / total_count


def main():
    torch.manual_seed(0)
    texts = make_texts(160, 0)
    vocab = build_vocab(texts)
    criterion = nn.CrossEntropyLoss()
    bags = DataLoader(texts, batch_size=16, shuffle=True, collate_fn=collate_bags(vocab))
    model = TextClassificationModel(len(vocab), 16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1.0, gamma=0.9)
    for _ in range(8):
        accuracy = train(model, bags, criterion, optimizer)
        scheduler.step()
    padded = DataLoader(texts, batch_size=32, shuffle=True, collate_fn=collate_padded(vocab))
    lstm = LSTMClassifier(len(vocab), 12, 12)
    adam = torch.optim.Adam(lstm.parameters(), lr=0.02)
    for _ in range(8):
        lstm_accuracy = train(lstm, padded, criterion, adam)
    assert not lstm.embedding.weight[0].any()
    label, text, lengths = next(iter(DataLoader(texts, batch_size=4, collate_fn=collate_padded(vocab))))
    with torch.no_grad():
        _, weights = lstm(text, lengths)
    assert torch.allclose(weights.sum(1), torch.ones(4)) and (weights[text == 0] == 0).all()
    print(accuracy, lstm_accuracy, text[0], lengths)
    assert accuracy > 0.9 and lstm_accuracy > 0.9

    vectors = torch.linspace(-1, 1, 5 * 3).view(5, 3)
    pretrained = nn.Embedding.from_pretrained(vectors, freeze=True)
    bag = nn.EmbeddingBag.from_pretrained(vectors, mode="sum")
    summed = bag(torch.tensor([0, 1, 2, 4]), torch.tensor([0, 3]))
    assert torch.allclose(summed[0], pretrained(torch.tensor([0, 1, 2])).sum(0))
    return {
        "bags": accuracy,
        "lstm": lstm_accuracy,
        "exact_text": str(text[0].tolist()),
        "exact_lengths": str(lengths),
        "exact_sum": summed[1].sum().item(),
    }


if __name__ == "__main__":
    print(main())
