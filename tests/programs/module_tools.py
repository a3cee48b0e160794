"""Looking into modules: names, children, counts, summaries, edits of Sequential and state dicts, apply, dtype moves."""

from collections import OrderedDict
from functools import partial

import torch
import torch.nn as nn


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.norm(self.linear(x)))


def summary(model, x):
    """One line per layer: name, output shape, parameters."""
    lines, handles = [], []

    def hook(name, module, inputs, output):
        count = sum(p.numel() for p in module.parameters(recurse=False))
        lines.append(f"{name:<16}{type(module).__name__:<12}{list(output.shape)!s:<12}{count:>8,}")

    for name, module in model.named_modules():
        if len(list(module.children())) == 0:
            handles.append(module.register_forward_hook(partial(hook, name)))
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return lines


def init_weights(m, gain):
    if isinstance(m, nn.Linear):
        torch.nn.init.xavier_normal_(m.weight, gain=gain)
        m.bias.data.fill_(0.01)


def main(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        OrderedDict([("stem", nn.Linear(4, 8)), ("body", nn.Sequential(Block(8), Block(8))), ("head", nn.Linear(8, 3))])
    )
    print(model)
    text = repr(model)
    assert "(stem): Linear(in_features=4, out_features=8, bias=True)" in text
    assert "(norm): LayerNorm((8,), eps=1e-06, elementwise_affine=True" in text
    assert "(act): LeakyReLU(negative_slope=0.1)" in text
    lines = summary(model, torch.zeros(2, 4))
    print("\n".join(lines))
    assert len(lines) == 8

    assert [n for n, _ in model.named_children()] == ["stem", "body", "head"]
    assert len(list(model.modules())) == 12
    assert model.get_submodule("body.1.norm") is model.body[1].norm
    assert model.get_parameter("head.bias") is model.head.bias
    assert len(model) == 3
    assert model[-1] is model.head
    assert isinstance(model[:2], nn.Sequential)
    by_depth = OrderedDict((n, p.numel()) for n, p in model.named_parameters(prefix="net"))
    assert next(iter(by_depth)) == "net.stem.weight"
    total = sum(by_depth.values())

    model.apply(partial(init_weights, gain=nn.init.calculate_gain("leaky_relu", 0.1)))
    assert (model.stem.bias == 0.01).all()
    size = sum(p.nelement() * p.element_size() for p in model.parameters())

    # modes spread to all below, dtype moves keep the structure
    model.eval()
    assert not any(m.training for m in model.modules())
    model.body.train()
    assert model.body[0].training
    assert not model.head.training
    model.train()
    wide = model.double()
    assert wide is model
    assert next(model.parameters()).dtype == torch.float64
    assert model(torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float64
    model.to(torch.float32).requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model.requires_grad_()

    # state dicts: prefixes added by wrappers are removed, a head of the wrong name is reported
    wrapped = OrderedDict(("module." + k, v) for k, v in model.state_dict().items())
    clean = {k.replace("module.", "", 1): v for k, v in wrapped.items()}
    assert str(model.load_state_dict(clean)) == "<All keys matched successfully>"
    broken = dict(clean)
    broken["tail.bias"] = broken.pop("head.bias")
    try:
        model.load_state_dict(broken)
    except RuntimeError as error:
        assert "head.bias" in str(error)
        assert "tail.bias" in str(error)
    else:
        raise AssertionError("wrong keys must be refused")

    # editing
    model.add_module("scale", nn.Identity())
    model.append(nn.Softmax(dim=-1))
    assert torch.allclose(model(torch.randn(5, 4)).sum(-1), torch.ones(5))
    model[2] = nn.Linear(8, 6, bias=False)
    assert "head.bias" not in model.state_dict()
    assert model.head.bias is None
    del model.scale
    assert list(model._modules) == ["stem", "body", "head", "4"]
    assert hasattr(model, "head")
    assert not hasattr(model, "missing")
    try:
        model.missing  # noqa: B018
    except AttributeError as error:
        assert "missing" in str(error)
    model = nn.Sequential(*list(model.children())[:-1])
    assert next(iter(model.state_dict())) == "0.weight"
    frozen = nn.Linear(2, 2)
    try:
        frozen.weight = torch.zeros(2, 2)
    except TypeError:
        pass
    else:
        raise AssertionError("a parameter may only be replaced by a parameter")
    params = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(params * 0 + 0.5, model.parameters())
    assert model[0].weight.unique().tolist() == [0.5]
    return {"exact_total": float(total), "exact_bytes": float(size), "exact_after": float(params.numel())}


if __name__ == "__main__":
    print(main())
