"""Random training programs as text of Python.

A program is a :class:`Spec`, which :func:`text_of` writes out: a net, a loss, an optimizer and a step, with *knobs* and
*effects* in them. A knob is a Python value that the step reads: some *place* holds it (an attribute, a closure cell, a
default argument …), some *reader* fetches it, and some *site* of the step (forward, loss, hook …) puts it to use. An effect
is what the step's own Python does beside its tensors: it counts, appends, draws, prints. A change is a line of Python that
runs between two steps (:mod:`step_changes`). Everything is text so that a sequence can be shown, and run by hand.
"""

# ruff: noqa: E501 - lines of programs are as long as they are

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from step_effects import EFFECTS
from step_places import NUMBERS, PLACES, READERS, SITES, USES, VALUES

# --- programs ---------------------------------------------------------------------------------------------------------

BODIES: dict[str, list[str]] = {
    "linear": ["nn.Linear(6, 5)"],
    "mlp": ["nn.Linear(6, 5)", "nn.ReLU()", "nn.Linear(5, 5)"],
    "batch norm": ["nn.Linear(6, 5)", "nn.BatchNorm1d(5)", "nn.ReLU()"],
    "layer norm": ["nn.Linear(6, 5)", "nn.LayerNorm(5)", "nn.GELU()"],
    "dropout": ["nn.Linear(6, 5)", "nn.LeakyReLU(0.1)", "nn.Dropout(0.3)"],
    "everything": ["nn.Linear(6, 5)", "nn.BatchNorm1d(5)", "nn.ELU()", "nn.Dropout(0.2)", "nn.Linear(5, 5)"],
    "conv": ["nn.Unflatten(1, (1, 2, 3))", "nn.Conv2d(1, 2, 2)", "nn.BatchNorm2d(2)", "nn.Flatten()", "nn.Linear(4, 5)"],
    "conv 1d": ["nn.Unflatten(1, (2, 3))", "nn.Conv1d(2, 5, 2)", "nn.ReLU()", "nn.AdaptiveAvgPool1d(1)", "nn.Flatten()"],
    "embedding": ["Tokens()"],
    "recurrent": ["Recurrent()"],
    "tied": ["nn.Linear(6, 6)", "nn.Tanh()", "Again()", "nn.Linear(6, 5)"],
    "branches": ["Branches()"],
    "weight norm": ["nn.utils.weight_norm(nn.Linear(6, 5))", "nn.Softplus()"],
}  # fmt: skip

OWN_LAYERS = {
    "Tokens()": """
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 5)
    def forward(self, x):
        return self.table((x.abs() * 3).long().clamp(0, 7)).mean(1)
""",
    "Recurrent()": """
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 5, batch_first=True)
    def forward(self, x):
        return self.cell(x.reshape(-1, 2, 3))[0][:, -1]
""",
    "Again()": """
class Again(nn.Module):
    def forward(self, x):
        return F.linear(x, model.body[0].weight.t(), None)
""",
    "Branches()": """
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)
        self.use, self.depth, self.names = True, 1, ["relu"]
    def forward(self, x):
        y = self.left(x)
        if self.use:
            y = y + self.right(x)
        for _ in range(self.depth):
            for name in self.names:
                y = getattr(F, name)(y)
        return y
""",
}

OPTIMIZERS = [
    "kobai.optim.SGD(model.parameters(), lr=0.1)",
    "kobai.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)",
    "kobai.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01, nesterov=True)",
    "kobai.optim.SGD([{'params': model.body.parameters()}, {'params': model.head.parameters(), 'lr': 0.01}], lr=0.1)",
    "kobai.optim.Adam(model.parameters(), lr=0.02)",
    "kobai.optim.AdamW(model.parameters(), lr=0.02)",
    "kobai.optim.RMSprop(model.parameters(), lr=0.01)",
    "kobai.optim.Adagrad(model.parameters(), lr=0.05)",
]
SCHEDULES = [
    "",
    "lr_scheduler.StepLR(optimizer, 2, gamma=0.5)",
    "lr_scheduler.CosineAnnealingLR(optimizer, 8)",
    "lr_scheduler.LambdaLR(optimizer, lambda i: 1 / (1 + i))",
]
LOSSES = {
    "function": "def criterion(out, t):\n    loss = F.cross_entropy(out, t)\n    %\n    return loss",
    "library": "criterion = F.cross_entropy",
    "library's object": "criterion = nn.CrossEntropyLoss()",
    "partial": "criterion = functools.partial(F.cross_entropy, label_smoothing=0.1)",
    "lambda": "criterion = lambda out, t: F.cross_entropy(out, t)",
    "object": (
        "class Criterion:\n    def __call__(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriterion = Criterion()"
    ),
    "module": (
        "class Criterion(nn.Module):\n    def forward(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriterion = Criterion()"
    ),
    "method": (
        "class Criteria:\n    def loss(self, out, t):\n        loss = F.cross_entropy(out, t)\n        %\n"
        "        return loss\ncriteria = Criteria()\ncriterion = criteria.loss"
    ),
    "closure": (
        "def make_criterion():\n    base = nn.CrossEntropyLoss()\n    def criterion(out, t):\n        loss = base(out, t)\n"
        "        %\n        return loss\n    return criterion\ncriterion = make_criterion()"
    ),
}
DRIVERS = ["capture", "method", "resets outside", "accumulates", "two steps", "trainer", "fit"]


@dataclass(frozen=True)
class Knob:
    name: str
    kind: str
    place: str
    reader: str
    site: str
    use: str
    values: tuple[Any, ...]

    @property
    def texts(self) -> tuple[str, str, str]:
        return NUMBERS[self.place] if self.place in NUMBERS else PLACES[self.place]

    def fill(self, text: str, value: Any = None) -> str:
        return named(text, self.name).replace("$", repr(value))

    @property
    def expression(self) -> str:
        return self.fill(READERS[self.reader][1].replace("%", self.texts[1]))

    @property
    def first(self) -> str:
        made = self.fill(self.texts[0], self.values[0])
        reader = self.fill(READERS[self.reader][0].replace("%", self.texts[1]))
        return f"{self.name}_all = {VALUES[self.kind]!r}\n{made}\n{reader}\n"

    def change(self, i: int) -> str:
        return self.fill(self.texts[2], self.values[i % len(self.values)])


@dataclass(frozen=True)
class Effect:
    name: str
    what: str
    site: str


@dataclass(frozen=True)
class Spec:
    """A program. The defaults are the plainest one."""

    body: str = "linear"
    loss: str = "function"
    optimizer: str = OPTIMIZERS[0]
    schedule: str = ""
    clip: float | None = None
    driver: str = "capture"
    knobs: tuple[Knob, ...] = ()
    effects: tuple[Effect, ...] = ()

    @property
    def trains_itself(self) -> bool:
        return self.driver in ("trainer", "fit")


def named(text: str, name: str) -> str:
    """``text`` with ``name`` for @ and @ for §."""
    return text.replace("@", name).replace("§", "@")


def indented(text: str, columns: int) -> str:
    return text.replace("\n", "\n" + " " * columns)


def text_of(spec: Spec) -> str:
    """The program, for :mod:`capture_fuzz`'s namespace; ``wrap`` in it captures, or does nothing."""
    before: list[str] = []
    at: dict[str, list[str]] = {
        "forward": [],
        "forward of a layer": [],
        "helper of forward": [],
        "loss": [],
        "step": [],
    }
    after: list[str] = []
    body_of_loss = "%" in LOSSES[spec.loss]

    def place(site: str) -> str:
        if site == "loss" and not body_of_loss:
            site = "step"
        return "forward" if site == "step" and spec.trains_itself else site

    for knob in spec.knobs:
        after.append(knob.first)
        site = place(knob.site)
        use = USES[knob.kind][knob.use.partition(" ")[0]][int(knob.use.partition(" ")[2])]
        if site != knob.site and SITES[site][0] != SITES[knob.site][0]:
            use = use.replace("loss", "h").replace("out", "h")
        use = use.replace("#", knob.expression)
        if site in at:
            at[site].append(use)
        else:
            after.append(knob.fill(SITES[site][1].replace("%", use)))
    for effect in spec.effects:
        setup, statement, _ = EFFECTS[effect.what]
        after.append(named(setup, effect.name))
        site = place(effect.site)
        at[site].append(f"here = {SITES[site][0]}\n{statement.replace('@', effect.name)}\n{SITES[site][0]} = here")
    layers = BODIES[spec.body]
    before += [OWN_LAYERS[layer].strip() for layer in layers if layer in OWN_LAYERS]
    lines = {site: "\n".join(statements) or "pass" for site, statements in at.items()}
    before.append(f"""
class Own(nn.Module):
    def forward(self, h):
        {indented(lines["forward of a layer"], 8)}
        return h
def helper(h):
    {indented(lines["helper of forward"], 4)}
    return h
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential({", ".join(layers)})
        self.own = Own()
        self.head = nn.Linear(5, 3)
        self.act = F.relu
    def forward(self, x):
        h = self.act(self.body(x))
        h = helper(self.own(h))
        {indented(lines["forward"], 8)}
        return self.head(h)
model = Net()
""".strip())  # fmt: skip
    loss = LOSSES[spec.loss]
    columns = len(loss[: loss.find("%")]) - loss.rfind("\n", 0, loss.find("%")) - 1 if body_of_loss else 0
    before.append(loss.replace("%", indented(lines["loss"], columns)))
    before.append(f"optimizer = {spec.optimizer}")
    before.append(f"schedule = {spec.schedule or None}")
    before.append(f"clip = {spec.clip}")
    return "\n".join([*before, *after, _driver(spec, lines["step"])]) + "\n"


def _driver(spec: Spec, lines: str) -> str:
    if spec.trains_itself:
        return (
            "trainer = Trainer(model, optimizer, criterion, scheduler=schedule, scheduler_interval='batch',\n"
            f"    clip_grad_norm=clip, capture=CAPTURED, verify_capture=VERIFY, terminate_on_non_finite=False{WATCHER if spec.driver == 'fit' else ''})\n"
            "def call(x, t): return trainer.train_step((x, t))"
        )
    self, indent = ("self, ", 4) if spec.driver == "method" else ("", 0)
    reset = {"resets outside": "pass", "accumulates": "pass"}.get(spec.driver, "optimizer.zero_grad()")
    update = "pass" if spec.driver == "accumulates" else "optimizer.step()"
    step = f"""
def step({self}x, t):
    {reset}
    out = model(x)
    loss = criterion(out, t)
    {indented(lines, 4)}
    loss.backward()
    if clip is not None: nn.utils.clip_grad_norm_(model.parameters(), clip)
    {update}
    if schedule is not None: schedule.step()
    return loss
""".strip()
    if spec.driver == "method":
        return f"class Loop:\n    {indented(step, indent)}\nloop = Loop()\ncall = wrap(loop.step)"
    if spec.driver == "resets outside":
        return f"{step}\ncaptured = wrap(step)\ndef call(x, t):\n    optimizer.zero_grad()\n    return captured(x, t)"
    if spec.driver == "accumulates":
        return (
            f"{step}\ncaptured = wrap(step)\ndone = 0\ndef call(x, t):\n    global done\n    done += 1\n"
            "    loss = captured(x, t)\n    if done % 2 == 0:\n        optimizer.step()\n        optimizer.zero_grad()\n    return loss"
        )
    if spec.driver == "two steps":
        return (
            f"{step}\ntrain = wrap(step)\n@kobai.no_grad()\ndef evaluate(x):\n    return model(x).sum()\nevaluate = wrap(evaluate)\n"
            "def call(x, t):\n    loss = train(x, t)\n    mode = model.training\n    model.eval()\n    score = evaluate(x)\n"
            "    model.train(mode)\n    return kobai.stack([loss.detach(), score.detach()])"
        )
    return f"{step}\ncall = wrap(step)"


WATCHER = ", callbacks=[watcher]"
