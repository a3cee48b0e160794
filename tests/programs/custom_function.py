"""Extending autograd: own torch.autograd.Function classes, checked numerically and trained through."""

import torch
import torch.nn as nn
from torch.autograd import Function


class Legendre3(Function):
    """The third Legendre polynomial, (5x³ − 3x) / 2."""

    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input**3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        (input,) = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input**2 - 1)


class LinearFunction(Function):
    @staticmethod
    def forward(ctx, input, weight, bias=None):
        ctx.save_for_backward(input, weight, bias)
        output = input.mm(weight.t())
        if bias is not None:
            output += bias.unsqueeze(0).expand_as(output)
        return output

    @staticmethod
    def backward(ctx, grad_output):
        input, weight, bias = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = grad_output.mm(weight)
        if ctx.needs_input_grad[1]:
            grad_weight = grad_output.t().mm(input)
        if bias is not None and ctx.needs_input_grad[2]:
            grad_bias = grad_output.sum(0)
        return grad_input, grad_weight, grad_bias


class Binarise(Function):
    """Sign forwards, identity backwards within [−1, 1]: the straight-through estimator."""

    @staticmethod
    def forward(ctx, x, limit):
        ctx.save_for_backward(x)
        ctx.limit = limit
        return torch.sign(x)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output.masked_fill(x.abs() > ctx.limit, 0.0), None


class MyLinear(nn.Module):
    def __init__(self, input_features, output_features, bias=True):
        super().__init__()
        self.input_features = input_features
        self.output_features = output_features
        self.weight = nn.Parameter(torch.empty(output_features, input_features))
        if bias:
            self.bias = nn.Parameter(torch.empty(output_features))
        else:
            self.register_parameter("bias", None)
        nn.init.uniform_(self.weight, -0.3, 0.3)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -0.3, 0.3)

    def forward(self, input):
        return LinearFunction.apply(input, self.weight, self.bias)

    def extra_repr(self):
        return f"input_features={self.input_features}, output_features={self.output_features}"


class BinaryNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = MyLinear(10, 64)
        self.fc2 = MyLinear(64, 1, bias=False)

    def forward(self, x):
        hidden = Binarise.apply(self.fc1(x), 1.0)
        return self.fc2(hidden).squeeze(1)


def main(seed=0):
    torch.manual_seed(seed)
    x = torch.linspace(-1, 1, 7, dtype=torch.double, requires_grad=True)
    y = Legendre3.apply(x)
    y.sum().backward()

    inputs = (
        torch.randn(5, 4, dtype=torch.double, requires_grad=True),
        torch.randn(3, 4, dtype=torch.double, requires_grad=True),
        torch.randn(3, dtype=torch.double, requires_grad=True),
    )
    assert torch.autograd.gradcheck(LinearFunction.apply, inputs, eps=1e-6, atol=1e-4)
    assert torch.autograd.gradcheck(Legendre3.apply, (x,), eps=1e-6, atol=1e-4)

    data = torch.randn(512, 10)
    target = (data[:, 0] * data[:, 1] > 0).float() * 2 - 1
    model = BinaryNet()
    assert "input_features=10, output_features=64" in repr(model)
    assert [name for name, _ in model.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(data) - target).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0], (losses[0], losses[-1])
    return {
        "exact_value": y.detach()[1].item(),
        "exact_gradient_sum": x.grad.sum().item(),
        "exact_gradient_first": x.grad[0].item(),
        "loss": losses[-1],
    }


if __name__ == "__main__":
    print(main())
