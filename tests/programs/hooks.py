"""Hooks: activations and gradients recorded and changed by forward, pre-forward, backward and tensor hooks."""

from collections import defaultdict

import numpy as np
import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.act = nn.Sigmoid()
        self.fc2 = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class FeatureExtractor:
    """Keeps the output of the named layers of a model."""

    def __init__(self, model, layers):
        self.features = {}
        self.handles = []
        for name, module in model.named_modules():
            if name in layers:
                self.handles.append(module.register_forward_hook(self.save(name)))

    def save(self, name):
        def hook(module, inputs, output):
            assert isinstance(inputs, tuple)
            self.features[name] = output.detach()

        return hook

    def remove(self):
        for handle in self.handles:
            handle.remove()


def main(seed=0):
    torch.manual_seed(seed)
    generator = np.random.default_rng(3)
    net = Net()
    for p in net.parameters():
        p.data = torch.tensor(generator.normal(scale=0.5, size=p.shape), dtype=torch.float32)
    x = torch.tensor(generator.normal(size=(5, 4)).astype(np.float32), requires_grad=True)

    # forward hooks
    extractor = FeatureExtractor(net, ["fc1", "act"])
    out = net(x)
    assert set(extractor.features) == {"fc1", "act"}
    assert torch.allclose(torch.sigmoid(extractor.features["fc1"]), extractor.features["act"])
    extractor.remove()
    extractor.features.clear()
    net(x)
    assert not extractor.features

    # backward hooks see and may replace the gradient
    seen = defaultdict(list)

    def backward_hook(module, grad_input, grad_output):
        seen[type(module).__name__].append((grad_input[0].norm().item(), grad_output[0].norm().item()))

    handles = [m.register_full_backward_hook(backward_hook) for m in net.children()]
    out = net(x)
    out.pow(2).sum().backward()
    assert sorted(seen) == ["Linear", "Sigmoid"]
    assert len(seen["Linear"]) == 2
    assert np.isclose(seen["Linear"][0][1], 2 * out.norm().item(), rtol=1e-5)
    assert np.isclose(seen["Linear"][1][0], x.grad.norm().item(), rtol=1e-5)
    plain_gradient = x.grad.clone()
    for handle in handles:
        handle.remove()

    x.grad = None
    with_scaling = net.act.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.5,))
    net(x).pow(2).sum().backward()
    with_scaling.remove()
    assert torch.allclose(x.grad, plain_gradient * 0.5, rtol=1e-5, atol=1e-7)

    # a pre-forward hook replaces the input, a forward hook the output
    x.grad = None
    pre = net.fc1.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    post = net.fc2.register_forward_hook(lambda module, args, output: output + 1)
    changed = net(x)
    pre.remove()
    post.remove()
    assert torch.allclose(changed, net(x * 2) + 1, atol=1e-6)

    # tensor hooks: a gradient is read, then clamped on its way to a leaf
    norms = []
    h = net.act(net.fc1(x))
    h.register_hook(lambda grad: norms.append(grad.norm().item()))
    clip = net.fc1.weight.register_hook(lambda grad: torch.clamp(grad, -0.05, 0.05))
    net.zero_grad(set_to_none=True)
    net.fc2(h).sum().backward()
    assert len(norms) == 1
    assert net.fc1.weight.grad.abs().max() <= 0.05 + 1e-7
    clip.remove()

    # a global look at every leaf by named_parameters
    gradient_norms = {name: p.grad.norm(2).item() for name, p in net.named_parameters() if p.grad is not None}
    return {
        "exact_output": out.sum().item(),
        "exact_input_gradient": plain_gradient.norm().item(),
        "exact_hooked_hidden": norms[0],
        "exact_clipped_weight": gradient_norms["fc1.weight"],
        "exact_changed": changed.mean().item(),
        "exact_seen_sigmoid_in": seen["Sigmoid"][0][0],
        "exact_seen_sigmoid_out": seen["Sigmoid"][0][1],
    }


if __name__ == "__main__":
    print(main())
