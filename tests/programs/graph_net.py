"""Graph networks on a planted partition: dense GCN, sparse message passing with index_add_, attention over edges."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parameter import Parameter


class GraphConvolution(nn.Module):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(torch.FloatTensor(in_features, out_features))
        if bias:
            self.bias = Parameter(torch.FloatTensor(out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1.0 / self.weight.size(1) ** 0.5
        self.weight.data.uniform_(-stdv, stdv)
        if self.bias is not None:
            self.bias.data.uniform_(-stdv, stdv)

    def forward(self, x, adj):
        output = torch.mm(adj, torch.mm(x, self.weight))
        return output if self.bias is None else output + self.bias

    def __repr__(self):
        return f"{self.__class__.__name__} ({self.in_features} -> {self.out_features})"


class GCN(nn.Module):
    def __init__(self, nfeat, nhid, nclass, dropout):
        super().__init__()
        self.gc1 = GraphConvolution(nfeat, nhid)
        self.gc2 = GraphConvolution(nhid, nclass)
        self.dropout = dropout

    def forward(self, x, adj):
        x = F.relu(self.gc1(x, adj))
        x = F.dropout(x, self.dropout, training=self.training)
        return F.log_softmax(self.gc2(x, adj), dim=1)


class EdgeAttention(nn.Module):
    """Softmax over the incoming edges of each node, from scatter operations."""

    def __init__(self, features, hidden, classes):
        super().__init__()
        self.lin = nn.Linear(features, hidden, bias=False)
        self.att = nn.Parameter(torch.empty(1, 2 * hidden))
        nn.init.xavier_uniform_(self.att)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x, edge_index):
        src, dst = edge_index
        h = self.lin(x)
        score = F.leaky_relu((torch.cat([h[src], h[dst]], dim=1) * self.att).sum(1), 0.2)
        weight = torch.exp(score - score.max().detach())
        total = torch.zeros(x.size(0)).scatter_add(0, dst, weight)
        alpha = weight / total[dst]
        gathered = torch.zeros_like(h).index_add(0, dst, alpha.unsqueeze(1) * h[src])
        return F.log_softmax(self.out(F.elu(gathered)), dim=1)


def planted_partition(rng, n=60, classes=3):
    labels = np.repeat(np.arange(classes), n // classes)
    p = np.where(labels[:, None] == labels[None, :], 0.4, 0.03)
    upper = np.triu(rng.random((n, n)) < p, 1)
    adj = torch.tensor((upper | upper.T).astype(np.float32))
    return adj + torch.eye(n), torch.tensor(labels)


def main(seed=0):
    torch.manual_seed(seed)
    adj, labels = planted_partition(np.random.default_rng(0))
    n = adj.size(0)
    degree = adj.sum(1)
    inverse_root = torch.diag(degree.pow(-0.5))
    normalised = inverse_root @ adj @ inverse_root
    edge_index = adj.nonzero().t().contiguous()
    features = torch.eye(n)
    idx_train = torch.tensor([0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43])
    mask = torch.zeros(n, dtype=torch.bool)
    mask[idx_train] = True

    model = GCN(n, 16, 3, dropout=0.3)
    print(model.gc1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    for _ in range(100):
        model.train()
        optimizer.zero_grad()
        output = model(features, normalised)
        loss = F.nll_loss(output[idx_train], labels[idx_train])
        loss.backward()
        optimizer.step()
    model.eval()
    gcn = (model(features, normalised)[~mask].max(1)[1] == labels[~mask]).double().mean().item()

    attention = EdgeAttention(n, 16, 3)
    optimizer = torch.optim.Adam(attention.parameters(), lr=0.02, weight_decay=5e-4)
    for _ in range(100):
        optimizer.zero_grad()
        F.nll_loss(attention(normalised @ features, edge_index)[mask], labels[mask]).backward()
        optimizer.step()
    with torch.no_grad():
        gat = (attention(normalised @ features, edge_index).argmax(1) == labels)[~mask].float().mean().item()

    # message passing by sparse indices equals the dense product
    src, dst = edge_index
    x = torch.arange(n * 2, dtype=torch.float32).view(n, 2).div_(n).requires_grad_()
    messages = torch.zeros(n, 2).index_add(0, dst, x[src] * normalised[dst, src].unsqueeze(1))
    assert torch.allclose(messages, normalised @ x, atol=1e-5)
    messages.square().sum().backward()
    assert gcn > 0.8, gcn
    assert gat > 0.7, gat
    return {
        "exact_edges": float(edge_index.shape[1]),
        "exact_messages": messages.sum().item(),
        "exact_gradient": x.grad.norm().item(),
        "gcn": gcn,
        "gat": gat,
    }


if __name__ == "__main__":
    print(main())
