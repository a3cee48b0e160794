"""A recommender: matrix factorisation with embeddings and biases on ratings made from known factors."""

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset


class Ratings(Dataset):
    def __init__(self, users, items, ratings):
        self.users = torch.LongTensor(users)
        self.items = torch.LongTensor(items)
        self.ratings = torch.tensor(ratings, dtype=torch.float32)

    def __len__(self):
        return self.ratings.shape[0]

    def __getitem__(self, index):
        return {"user": self.users[index], "item": self.items[index], "rating": self.ratings[index]}


class MatrixFactorization(nn.Module):
    def __init__(self, n_users, n_items, n_factors=6, mean=0.0):
        super().__init__()
        self.user_factors = nn.Embedding(n_users, n_factors)
        self.item_factors = nn.Embedding(n_items, n_factors)
        self.user_biases = nn.Embedding(n_users, 1)
        self.item_biases = nn.Embedding(n_items, 1)
        self.offset = nn.Parameter(torch.tensor(float(mean)))
        for emb in (self.user_factors, self.item_factors):
            nn.init.normal_(emb.weight, std=0.1)
        self.user_biases.weight.data.fill_(0.0)
        self.item_biases.weight.data.zero_()

    def forward(self, user, item):
        pred = self.user_biases(user) + self.item_biases(item) + self.offset
        pred = pred + (self.user_factors(user) * self.item_factors(item)).sum(1, keepdim=True)
        return pred.squeeze()


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_users, n_items, rank = 40, 30, 2
    full = rng.normal(size=(n_users, rank)) @ rng.normal(size=(rank, n_items)) + 3
    observed = rng.random(full.shape) < 0.7
    users, items = np.nonzero(observed)
    order = rng.permutation(len(users))
    cut = int(0.85 * len(order))
    tr, va = order[:cut], order[cut:]
    train_set = Ratings(users[tr], items[tr], full[users[tr], items[tr]])
    valid_set = Ratings(users[va], items[va], full[users[va], items[va]])
    train_loader = DataLoader(train_set, batch_size=128, shuffle=True)
    valid_loader = DataLoader(valid_set, batch_size=len(valid_set))

    model = MatrixFactorization(n_users, n_items, 4, mean=train_set.ratings.mean())
    optimizer = torch.optim.Adam(
        [
            {"params": [model.user_factors.weight, model.item_factors.weight], "weight_decay": 1e-4},
            {"params": [model.user_biases.weight, model.item_biases.weight, model.offset]},
        ],
        lr=0.03,
    )
    loss_func = nn.MSELoss()
    for _ in range(40):
        model.train()
        for batch in train_loader:
            optimizer.zero_grad()
            loss = loss_func(model(batch["user"], batch["item"]), batch["rating"])
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        batch = next(iter(valid_loader))
        pred = model(batch["user"], batch["item"])
        rmse = loss_func(pred, batch["rating"]).sqrt().item()
        baseline = batch["rating"].std().item()
        scores = model.user_factors.weight @ model.item_factors.weight.T
        scores += model.user_biases.weight + model.item_biases.weight.T + model.offset
        scores[torch.from_numpy(observed)] = -torch.inf
        best = torch.argsort(scores, dim=1, descending=True)[:, :3]
    assert not any(observed[u, best[u, 0].item()] for u in range(n_users))
    assert rmse < 0.6 * baseline, (rmse, baseline)
    return {"rmse": rmse, "baseline": baseline, "train_loss": loss.item()}


if __name__ == "__main__":
    print(main())
