"""Metric learning: a Siamese net with contrastive and triplet losses, then SimCLR's NT-Xent, on noisy clusters."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Encoder(nn.Module):
    def __init__(self, dim=4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, dim))

    def forward(self, x):
        return F.normalize(self.net(x), p=2, dim=1)


class ContrastiveLoss(nn.Module):
    def __init__(self, margin=1.0):
        super().__init__()
        self.margin = margin

    def forward(self, output1, output2, label):
        distance = F.pairwise_distance(output1, output2, keepdim=True).squeeze(1)
        same = label * torch.pow(distance, 2)
        different = (1 - label) * torch.pow(torch.clamp(self.margin - distance, min=0.0), 2)
        return torch.mean(same + different)


def batch_hard_triplet(embeddings, labels, margin=0.5):
    distances = (embeddings.unsqueeze(0) - embeddings.unsqueeze(1)).pow(2).sum(-1).clamp(min=1e-12).sqrt()
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    hardest_positive = (distances * same.float()).max(dim=1)[0]
    hardest_negative = torch.where(same, torch.full_like(distances, 1e4), distances).amin(dim=1)
    return F.relu(hardest_positive - hardest_negative + margin).mean()


def nt_xent(z1, z2, temperature=0.2):
    z = torch.cat([z1, z2], dim=0)
    n = z1.shape[0]
    similarity = torch.einsum("id,jd->ij", z, z) / temperature
    similarity.fill_diagonal_(float("-inf"))
    positives = torch.cat([torch.arange(n) + n, torch.arange(n)])
    return F.cross_entropy(similarity, positives)


def separation(encoder, x, labels):
    with torch.no_grad():
        similarity = encoder(x) @ encoder(x).T
        same = labels[:, None] == labels[None, :]
        off_diagonal = ~torch.eye(len(x), dtype=torch.bool)
        inside = torch.masked_select(similarity, same & off_diagonal).mean()
        outside = similarity[~same].mean()
    return (inside - outside).item()


def main(seed=0):
    torch.manual_seed(seed)
    centres = torch.randn(4, 10)
    labels = torch.arange(4).repeat_interleave(40)
    x = centres[labels] + 0.6 * torch.randn(160, 10)

    def draw(n):
        index = torch.randint(0, 160, (n,))
        return x[index], labels[index]

    results = {}
    for method in ("contrastive", "triplet", "simclr"):
        encoder = Encoder()
        before = separation(encoder, x, labels)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-3)
        criterion = ContrastiveLoss()
        for _ in range(80):
            if method == "contrastive":
                (a, la), (b, lb) = draw(64), draw(64)
                loss = criterion(encoder(a), encoder(b), torch.eq(la, lb).float())
            elif method == "triplet":
                a, la = draw(64)
                loss = batch_hard_triplet(encoder(a), la)
            else:
                a, _ = draw(64)
                views = [a + 0.4 * torch.randn_like(a) for _ in range(2)]
                loss = nt_xent(encoder(views[0]), encoder(views[1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = separation(encoder, x, labels)
        norms = encoder(x).norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
        assert after > before + 0.1 or after > 0.8, (method, before, after)
        results[method] = after

    anchor = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    positive, negative = anchor + 0.5, anchor - torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    results["exact_triplet"] = nn.TripletMarginLoss(margin=1.0)(anchor, positive, negative).item()
    results["exact_cosine_embedding"] = F.cosine_embedding_loss(
        positive, negative, torch.tensor([1, -1]), margin=0.1
    ).item()
    results["exact_margin_ranking"] = F.margin_ranking_loss(
        torch.tensor([0.3, 0.8]), torch.tensor([0.5, 0.1]), torch.tensor([1.0, 1.0]), margin=0.2
    ).item()
    return results


if __name__ == "__main__":
    print(main())
