"""Knowledge distillation: a wide teacher, a small student, temperature, KL divergence and hard labels together."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def make_net(width, classes=5):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, classes))


def loss_fn_kd(student_logits, labels, teacher_logits, T=3.0, alpha=0.7):
    soft = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(student_logits / T, dim=1), F.softmax(teacher_logits / T, dim=1)
    )
    return soft * (alpha * T * T) + F.cross_entropy(student_logits, labels) * (1.0 - alpha)


def accuracy(logits, labels, topk=(1,)):
    """Precision at k, as the ImageNet example computes it."""
    maxk = max(topk)
    _, pred = logits.topk(maxk, 1, True, True)
    pred = pred.t()
    correct = pred.eq(labels.view(1, -1).expand_as(pred))
    return [(correct[:k].reshape(-1).float().sum(0) * (1.0 / labels.size(0))).item() for k in topk]


class AverageMeter:
    def __init__(self):
        self.sum = self.count = 0

    def update(self, value, n=1):
        self.sum += value * n
        self.count += n

    @property
    def avg(self):
        return self.sum / self.count


def main(seed=0):
    torch.manual_seed(seed)
    centres = torch.randn(5, 6) * 2
    labels = torch.arange(600) % 5
    x = centres[labels] + torch.randn(600, 6) * 0.7
    train_x, test_x, train_y, test_y = x[:400], x[400:], labels[:400], labels[400:]

    teacher = make_net(128)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(60):
        loss = F.cross_entropy(teacher(train_x), train_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    teacher.eval()
    for p in teacher.parameters():
        p.requires_grad = False

    student = make_net(8)
    optimizer = torch.optim.Adamax(student.parameters(), lr=0.02)
    meter, first = AverageMeter(), None
    for _ in range(100):
        student.train()
        with torch.no_grad():
            teacher_logits = teacher(train_x)
        loss = loss_fn_kd(student(train_x), train_y, teacher_logits)
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.update(loss.item(), train_x.size(0))
    student.eval()
    teacher_top1, teacher_top3 = accuracy(teacher(test_x), test_y, topk=(1, 3))
    student_top1, student_top3 = accuracy(student(test_x), test_y, topk=(1, 3))
    agreement = (teacher(test_x).argmax(1) == student(test_x).argmax(1)).float().mean().item()
    assert all(p.grad is None or not p.requires_grad for p in teacher.parameters())
    assert meter.avg < first
    assert loss.item() < 0.5 * first
    assert student_top1 > teacher_top1 - 0.15, (teacher_top1, student_top1)
    assert student_top3 >= student_top1
    assert teacher_top3 >= teacher_top1
    return {"teacher": teacher_top1, "student": student_top1, "agreement": agreement, "loss": loss.item()}


if __name__ == "__main__":
    print(main())
