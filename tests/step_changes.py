"""Random changes between two steps of a random program, as lines of Python."""

# ruff: noqa: E501 - lines of programs are as long as they are

from __future__ import annotations

import random
from collections.abc import Callable

from step_programs import BODIES, OPTIMIZERS, SCHEDULES, Spec

# --- changes ----------------------------------------------------------------------------------------------------------

HOOKS = {
    "register_forward_hook": "lambda m, i, o: o * {v}",
    "register_forward_pre_hook": "lambda m, i: (i[0] * {v},)",
    "register_full_backward_pre_hook": "lambda m, g: (g[0] * {v},)",
    "register_full_backward_hook": "lambda m, i, o: tuple(g if g is None else g * {v} for g in i)",
}


def _parameter(spec: Spec, rng: random.Random) -> str:
    named = ["model.head.weight", "model.head.bias"]
    for i, layer in enumerate(BODIES[spec.body]):
        if layer.startswith(("nn.Linear", "nn.Conv", "nn.BatchNorm", "nn.LayerNorm")):
            named += [f"model.body[{i}].weight", f"model.body[{i}].bias"]
    named += {"embedding": ["model.body[0].table.weight"], "branches": ["model.body[0].left.weight"]}.get(spec.body, [])
    return rng.choice(named)


def _module(spec: Spec, rng: random.Random) -> str:
    return rng.choice(["model", "model.head", "model.body", "model.body[0]", "model.own"])


def _layer(spec: Spec, rng: random.Random, *kinds: str) -> str | None:
    found = [f"model.body[{i}]" for i, layer in enumerate(BODIES[spec.body]) if layer.startswith(kinds)]
    return rng.choice(found) if found else None


def _freeze(spec: Spec, rng: random.Random) -> str:
    p, m, new = _parameter(spec, rng), _module(spec, rng), rng.choice(["True", "False", "False"])
    return rng.choice(
        [
            f"{p}.requires_grad_({new})",
            f"{p}.requires_grad = {new}",
            f"{m}.requires_grad_({new})",
            f"for p in {m}.parameters(): p.requires_grad = not p.requires_grad",
            f"for n, p in model.named_parameters(): p.requires_grad_(n.endswith({rng.choice(['weight', 'bias'])!r}))",
            f"model.requires_grad_({new}); model.head.requires_grad_(True)",
        ]
    )


def _hook(spec: Spec, rng: random.Random) -> str:
    kind = rng.choice([*HOOKS, "register_hook", "register_post_accumulate_grad_hook"])
    v = rng.choice([0.5, 2.0, 0.0])
    if kind == "register_hook":
        return f"handles.append({_parameter(spec, rng)}.register_hook(lambda g: g * {v}))"
    if kind == "register_post_accumulate_grad_hook":
        return f"handles.append({_parameter(spec, rng)}.{kind}(lambda p: p.grad.mul_({v})))"
    return f"handles.append({_module(spec, rng)}.{kind}({HOOKS[kind].format(v=v)}))"


def _unhook(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "if handles: handles.pop().remove()",
            "while handles: handles.pop().remove()",
            "if handles: handles.pop(0).remove()",
            "model.head._forward_hooks.clear()",
        ]
    )


def _rehook(spec: Spec, rng: random.Random) -> str:
    return _unhook(spec, rng) + "\n" + _hook(spec, rng)


def _hyper(spec: Spec, rng: random.Random) -> str:
    group = "optimizer.param_groups[0]"
    return rng.choice(
        [
            f"{group}['lr'] = {rng.choice([0.01, 0.03, 0.0])}",
            f"for g in optimizer.param_groups: g['lr'] *= {rng.choice([0.1, 0.5])}",
            f"{group}['weight_decay'] = {rng.choice([0.0, 0.1])}",
            f"if 'momentum' in {group}: {group}['momentum'] = {rng.choice([0.0, 0.5, 0.9])}",
            f"if 'nesterov' in {group} and {group}['momentum']: {group}['nesterov'] = not {group}['nesterov']",
            f"if 'dampening' in {group} and not {group}['nesterov']: {group}['dampening'] = 0.5",
            f"if 'betas' in {group}: {group}['betas'] = (0.5, 0.9)",
            f"if 'eps' in {group}: {group}['eps'] = 0.1",
            f"if 'alpha' in {group}: {group}['alpha'] = 0.5",
            f"if 'amsgrad' in {group}: {group}['amsgrad'] = True; optimizer.state.clear()",
            f"{group}['maximize'] = not {group}['maximize']",
        ]
    )


def _groups(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "extra = nn.Linear(5, 5); model.body.append(extra); optimizer.add_param_group({'params': extra.parameters(), 'lr': 0.05})",
            "optimizer.param_groups[0]['params'].pop()",
            "optimizer.param_groups[-1]['params'].reverse()",
            "optimizer.param_groups[-1]['params'] = optimizer.param_groups[-1]['params'][:1]",
            "optimizer.state.clear()",
            "optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))",
            "for s in optimizer.state.values():\n    for n, v in s.items():\n        if isinstance(v, kobai.Tensor): v.mul_(0.5)",
            "for s in optimizer.state.values():\n    for n, v in list(s.items()):\n        if isinstance(v, kobai.Tensor): s[n] = v * 0.5",
            "for s in optimizer.state.values():\n    if 'step' in s: s['step'] = 1",
        ]
    )


def _optimizer(spec: Spec, rng: random.Random) -> str:
    new = rng.choice(OPTIMIZERS)
    return f"optimizer = {new}" + ("\ntrainer.optimizer = optimizer" if spec.trains_itself else "")


def _handle_of(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "handles.append(optimizer.register_step_pre_hook(lambda o, a, k: [p.grad.mul_(0.5) for p in o.param_groups[0]['params'] if p.grad is not None] and None))",
            "handles.append(optimizer.register_step_post_hook(lambda o, a, k: [p.data.mul_(0.9) for p in o.param_groups[0]['params']] and None))",
        ]
    )


def _clip(spec: Spec, rng: random.Random) -> str:
    value = rng.choice([0.1, 0.5, 1.0, None])
    return f"trainer.clip_grad_norm = {value}" if spec.trains_itself else f"clip = {value}"


def _attribute(spec: Spec, rng: random.Random) -> str | None:
    choices = []
    for start, texts in {
        "nn.Dropout": ["{}.p = 0.6", "{}.p = 0.0"],
        "nn.BatchNorm": ["{}.momentum = 0.5", "{}.eps = 0.1", "{}.momentum = None", "{}.track_running_stats = False"],
        "nn.LayerNorm": ["{}.eps = 0.1"],
        "nn.LeakyReLU": ["{}.negative_slope = 0.5"],
        "nn.ELU": ["{}.alpha = 0.5"],
        "nn.GELU": ["{}.approximate = 'tanh'"],
        "nn.Softplus": ["{}.beta = 2.0"],
        "Branches": ["{}.use = not {}.use", "{}.depth = 2", "{}.names.append('tanh')", "{}.names[0] = 'gelu'"],
    }.items():
        layer = _layer(spec, rng, start)
        choices += [text.replace("{}", layer) for text in texts] if layer else []
    if spec.loss == "library's object":
        choices += ["criterion.label_smoothing = 0.2", "criterion.reduction = 'sum'"]
    if spec.loss == "partial":
        choices += ["criterion.keywords['label_smoothing'] = 0.3"]
    return rng.choice(choices) if choices else None


def _mode(spec: Spec, rng: random.Random) -> str:
    m = _module(spec, rng)
    return rng.choice([f"{m}.eval()", f"{m}.train()", f"{m}.train(not {m}.training)", f"{m}.training = False"])


def _replace_parameter(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"{p} = nn.Parameter({p}.detach() * 0.5)",
            f"{p}.data = {p}.data * 0.5",
            f"{p}.data = {p}.detach().clone()",
            f"{p} = {p}",
            "model.head.bias = None",
            f"{p} = nn.Parameter({p}.detach().clone(), requires_grad=False)",
            f"del {p.replace('weight', 'bias')}\n{p.replace('weight', 'bias')} = None" if "table" not in p else "pass",
        ]
    )


def _replace_module(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.head = nn.Linear(5, 3)",
            "model.head = copy.deepcopy(model.head)",
            "model.body.append(nn.Tanh())",
            "model.body.append(nn.Linear(5, 5))",
            "model.body[0] = copy.deepcopy(model.body[0])",
            "model.own = nn.Tanh()",
            "model.own = nn.Linear(5, 5)",
            "model.own = nn.Sequential(model.own, nn.Sigmoid())",
            "model._modules['own'] = nn.Tanh()",
            "model.body = nn.Sequential(*model.body, nn.Softplus())",
            "model.own = nn.Identity()",
        ]
    )


def _activation(spec: Spec, rng: random.Random) -> str:
    return "model.act = " + rng.choice(
        [
            "kobai.tanh",
            "F.gelu",
            "nn.Tanh()",
            "lambda h: h * 0.5",
            "F.relu",
            "functools.partial(F.leaky_relu, negative_slope=0.3)",
        ]
    )


def _gradients(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"{p}.grad = None",
            "model.zero_grad()",
            "optimizer.zero_grad(set_to_none=False)",
            "model.zero_grad(set_to_none=False)",
            f"if {p}.grad is not None: {p}.grad.zero_()",
            f"if {p}.grad is not None: {p}.grad.mul_(3.0)",
            f"{p}.grad = kobai.ones_like({p})",
            f"if {p}.grad is not None: {p}.grad = {p}.grad.clone()",
        ]
    )


def _write(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"with kobai.no_grad(): {p}.mul_(0.5)",
            f"nn.init.ones_({p})",
            f"nn.init.normal_({p}, std=0.1)",
            f"{p}.data.add_(0.1)",
            f"with kobai.no_grad(): {p}[0] = 0.5",
            f"with kobai.no_grad(): {p}.copy_(kobai.ones_like({p}))",
            f"{p}.detach().numpy()[...] *= 0.5",
        ]
    )


def _load(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.load_state_dict({k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()})",
            "model.load_state_dict({k: v * 0.5 if v.is_floating_point() else v for k, v in model.state_dict().items()}, assign=True)",
            "kept.update({k: v.clone() for k, v in model.state_dict().items()})",
            "if kept: model.load_state_dict(kept, strict=False)",
            "model.load_state_dict(copy.deepcopy(model).state_dict())",
        ]
    )


def _buffers(spec: Spec, rng: random.Random) -> str | None:
    layer = _layer(spec, rng, "nn.BatchNorm")
    if layer is None:
        return None
    return rng.choice(
        [
            f"{layer}.running_mean = kobai.ones_like({layer}.running_mean)",
            f"{layer}.running_var.fill_(2.0)",
            f"{layer}.reset_running_stats()",
            f"{layer}._buffers['running_mean'] = {layer}.running_mean * 0.5",
            f"{layer}.num_batches_tracked.zero_()",
            f"{layer}.running_mean.data = {layer}.running_mean * 2",
        ]
    )


def _patch(spec: Spec, rng: random.Random) -> str:
    v = rng.choice([0.5, 2.0])
    choices = [
        f"old_forward = model.forward\nmodel.forward = lambda x: old_forward(x) * {v}",
        f"class_forward = Net.forward\nNet.forward = lambda self, x, f=class_forward: f(self, x) * {v}",
        f"model.own.forward = lambda h: h * {v}",
        f"Own.forward = lambda self, h: h * {v}",
        f"old_helper = helper\ndef helper(h): return old_helper(h) * {v}",
        f"Own.__call__ = lambda self, h: h * {v}",
        f"model.__class__ = type('Net2', (Net,), {{'forward': lambda self, x: Net.forward(self, x) * {v}}})",
        f"head_forward = model.head.forward\nmodel.head.forward = lambda h: head_forward(h) * {v}",
        f"helper.__code__ = (lambda h: h * {v}).__code__",
        f"kept_step = optimizer.step\noptimizer.step = lambda: [p.data.mul_({v}) for p in model.parameters()] and kept_step()",
        f"Net.extra = property(lambda self: {v})",
    ]
    if spec.loss in ("object", "module", "method"):
        name, method = {
            "object": ("Criterion", "__call__"),
            "module": ("Criterion", "forward"),
            "method": ("Criteria", "loss"),
        }[spec.loss]
        choices.append(
            f"old_loss = {name}.{method}\n{name}.{method} = lambda self, out, t: old_loss(self, out, t) * {v}"
        )
    return rng.choice(choices)


def _rebind(spec: Spec, rng: random.Random) -> str:
    after = "\ntrainer.model = model" if spec.trains_itself else ""
    loss = "\ntrainer.loss_fn = criterion" if spec.trains_itself else ""
    return rng.choice(
        [
            "model = copy.deepcopy(model)" + after,
            "model = Net()" + after,
            "criterion = nn.CrossEntropyLoss(label_smoothing=0.2)" + loss,
            "criterion = lambda out, t: F.cross_entropy(out, t) * 0.5" + loss,
            "old_criterion = criterion\ncriterion = lambda out, t, c=old_criterion: c(out, t) * 0.5" + loss,
            "criterion = functools.partial(F.cross_entropy, label_smoothing=0.2)" + loss,
        ]
    )


def _tie(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "model.own = nn.Linear(5, 3, bias=False); model.own.weight = model.head.weight; model.own.forward = lambda h: h @ (model.own.weight.t() @ model.own.weight)",
            "nn.utils.weight_norm(model.head)",
            "if hasattr(model.head, 'weight_g'): nn.utils.remove_weight_norm(model.head)",
        ]
    )


def _random_state(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "kobai.manual_seed(7)",
            "saved = kobai.get_rng_state()\nkobai.set_rng_state(saved)",
            "kobai.rand(3)",
            "random.seed(5); np.random.seed(5)",
            "F.dropout(kobai.ones(9), 0.5)",
        ]
    )


def _schedule(spec: Spec, rng: random.Random) -> str | None:
    if not spec.schedule:
        return None
    new = f"schedule = {rng.choice(SCHEDULES[1:])}" + ("\ntrainer.scheduler = schedule" if spec.trains_itself else "")
    texts = ["schedule.step()", new]
    if "StepLR" in spec.schedule:
        texts += ["schedule.gamma = 0.9", "schedule.step_size = 1"]
    if "LambdaLR" in spec.schedule:
        texts += ["schedule.lr_lambdas = [lambda i: 0.5] * len(optimizer.param_groups)"]
    return rng.choice(texts)


def _modes_of_kobai(spec: Spec, rng: random.Random) -> str:
    return rng.choice(
        [
            "kobai.set_default_dtype(kobai.float64)",
            "kobai.set_default_dtype(kobai.float32)",
            "kobai.autograd.set_detect_anomaly(True)",
            "kobai.autograd.set_detect_anomaly(False)",
            "model.double()",
            "model.float()",
        ]
    )


def _keep(spec: Spec, rng: random.Random) -> str:
    p = _parameter(spec, rng)
    return rng.choice(
        [
            f"held.append({p}.detach())",
            f"held.append({p}.detach().clone())",
            f"held.append({p}.detach()[0])",
            "held.extend(model.state_dict().values())",
        ]
    )


CHANGES: dict[str, Callable[[Spec, random.Random], str | None]] = {
    "freeze": _freeze, "hook": _hook, "unhook": _unhook, "rehook": _rehook, "hyper-parameter": _hyper, "groups": _groups,
    "optimizer": _optimizer, "optimizer hook": _handle_of, "clip": _clip, "attribute of a layer": _attribute, "mode": _mode,
    "parameter replaced": _replace_parameter, "module replaced": _replace_module, "activation": _activation,
    "gradients": _gradients, "write": _write, "load": _load, "buffers": _buffers, "patch": _patch, "rebind": _rebind,
    "tie": _tie, "random state": _random_state, "schedule": _schedule, "settings": _modes_of_kobai, "keep": _keep,
}  # fmt: skip
"""By kind: the text of a change that fits the program, None where none does."""
