"""A module in a notebook: its layers, with what is known of their outputs, and their parameters."""

from __future__ import annotations

from typing import Any

from kobai.core.markup import tag
from kobai.core.notebook import frame, table

MOST = 100
"""Layers that are shown; of more, the first ones."""

_OUTPUTS = {
    "out_features": "(…, {})",
    "out_channels": "(N, {}, …)",
    "embedding_dim": "(…, {})",
    "hidden_size": "(…, {})",
}
"""Attributes that say what comes out of a layer, whatever goes in."""


def as_html(model: Any) -> str:
    """Title, a row for each layer, and the sums."""
    modules = list(model.named_modules())
    rows = [_row(name, module) for name, module in modules[:MOST]]
    parameters = {id(p): p for p in model.parameters()}.values()
    n, trained = (sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad]))
    nbytes = sum(p.nbytes for p in parameters)
    sums = f"{n:,} parameters, {nbytes / 2**20:.3g} MiB" + (f"; {trained:,} of them trained" if trained < n else "")
    more = tag("p", f"… and {len(modules) - MOST} more", class_="quiet") if len(modules) > MOST else None
    header = ("name", "layer", "output", "parameters")
    return frame(
        tag("b", type(model).__name__), tag("span", f" – {sums}", class_="quiet"), table(header, rows, [3]), more
    )


def _row(name: str, module: Any) -> tuple[Any, ...]:
    own = [p for p in module._parameters.values() if p is not None]
    children = bool(module._modules)
    output = next((form.format(value) for key, form in _OUTPUTS.items() if (value := getattr(module, key, 0))), "")
    depth = name.count(".") + 1 if name else 0
    indented = tag("span", name.rpartition(".")[2] or "", style=f"padding-left:{max(0, depth - 1) * 1.2:g}em")
    said = type(module).__name__ if children else f"{type(module).__name__}({module.extra_repr()})"
    count = f"{sum(p.numel() for p in own):,}" if own else ""
    return indented, tag("span", said, class_="quiet" if children else None), "" if children else output, count
