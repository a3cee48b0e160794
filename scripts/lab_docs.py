"""Write docs/lab: a page and a figure for each experiment of the lab, and their index.

    python scripts/lab_docs.py                    all experiments, in quick sizes, on the digits
    python scripts/lab_docs.py init-scale         one of them
    python scripts/lab_docs.py --full --data mnist --data-dir data
    python scripts/lab_docs.py --tutorial         run the commands of docs/tutorial.md, and write what they print into it

A page holds what the experiment's own class says of itself, the mathematics, which is kept here, and the figure and the finding
of the run that this script makes. Pages of diseases, of ``compare`` and of ``tune`` are written by hand.
"""

from __future__ import annotations

import argparse
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from kobai.lab.experiments.base import Experiment, Result, Settings
from kobai.lab.experiments.register import EXPERIMENTS, run

DOCS = Path(__file__).parents[1] / "docs"
PAGES, FIGURES, TUTORIAL = DOCS / "lab", DOCS / "figures", DOCS / "tutorial.md"

BLOCK = re.compile(r"```console(?: tail=(\d+))?\n\$ ((?:[^\n]*\\\n)*[^\n]*)\n(.*?)```\n", re.S)
"""A command of the tutorial with what it prints, or the last so many lines of it."""

LARGEST = 95_000
"""Bytes of a figure, which is drawn narrower until it is so small."""

FORMULAS = {
    "vanishing-gradient": """
        h₀ = x,  aₗ = Wₗ hₗ₋₁ + bₗ,  hₗ = f(aₗ)

        ∂L/∂hₗ₋₁ = Wₗᵀ (f′(aₗ) ⊙ ∂L/∂hₗ)

        ‖∂L/∂W₁‖ ≈ ‖∂L/∂W_L‖ · ∏ₗ (σ_w √n · rms f′(aₗ))        n: units of a layer, σ_w: std of its weights

        sigmoid, σ_w = 1/√n:  each factor is at most f′(0) = 1/4
        ReLU, σ_w = √(2/n):   half of the f′ are 1, half are 0: √2 · √½ = 1
    """,
    "activations": """
        sigmoid     σ(x) = 1 / (1 + e⁻ˣ)                σ′ = σ (1 − σ) ≤ 1/4
        tanh        (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)             tanh′ = 1 − tanh² ≤ 1
        ReLU        max(0, x)                           0 for x < 0, 1 for x > 0 (and 0 at 0, by convention)
        leaky ReLU  x for x > 0, 0.01 x for x ≤ 0       1 or 0.01
        PReLU       x for x > 0, a x for x ≤ 0          a is learnt
        RReLU       x for x > 0, a x for x ≤ 0          a is drawn from U(1/8, 1/3) in training, its mean afterwards
        ELU         x for x > 0, eˣ − 1 for x ≤ 0       1 or eˣ
        GELU        x Φ(x)                              Φ(x) + x φ(x), Φ the normal distribution
    """,
    "init-activations": """
        hₗ = f(Wₗ hₗ₋₁),  Wₗ ∈ ℝ¹⁰⁰ˣ¹⁰⁰ with entries from N(0, s²),  h₀ from N(0, 1)

        var(aₗ) = n s² · mean(hₗ₋₁²)                         the sum of n independent products

        s = 1:          var(a) ≈ n: sigmoid and tanh are driven to their ends
        s = 0.01:       var(a) = 10⁻⁴ n …: nothing of the signal is left after a few layers
        s = 1/√n:       var(a) = mean(h²): keeps what is straight at 0 (Xavier, as the book has it; LeCun normal)
        s = √(2/n):     makes up for the half that ReLU cuts off (He)
    """,
    "init-scale": """
        W ~ N(0, s²),  s ∈ {1, 0.1, 0.01, 0.001}

        rms(a) ≈ s √n · rms(h)          n = 100:  10, 1, 0.1, 0.01 times what came in

        s √n ≫ 1:  σ′(a) ≈ 0, the units are saturated, and the net is sure of what it does not know
        s √n ≪ 1:  all units say ½, and the gradient of the layer before is s √n / 4 of that behind
    """,
    "init-compare": """
        std 0.01   W ~ N(0, 0.01²)
        Xavier     W ~ N(0, 1/n)           n: inputs of the layer (Glorot's own is 2/(n_in + n_out))
        He         W ~ N(0, 2/n)
    """,
    "zero-init": """
        All weights of a layer equal: hᵢ = f(c Σⱼ xⱼ + b) is the same for every unit i,
        hence ∂L/∂hᵢ = Σₖ Wₖᵢ δₖ is the same too, and so is every row of ∂L/∂W.

        W ← W − η ∂L/∂W  leaves rows that were equal equal:  rank W = 1 for ever.

        With all weights 0 nothing goes back through them: at first the last layer alone has a gradient.
    """,
    "batch-norm": """
        μ = mean of x over the batch,  σ² = its variance (biased)

        y = γ (x − μ) / √(σ² + ε) + β          γ, β are learnt; in evaluation running means stand for μ and σ²

        W → c W gives x → c x, μ → c μ, σ → c σ: y stays.  The scale of the weights before it does not matter.
    """,
    "optimizers": """
        f(x, y) = x²/20 + y²,  ∇f = (x/10, 2y): twenty times steeper in y

        SGD                  w ← w − η g
        Momentum (velocity)  v ← μ v − η g,            w ← w + v           SGD(momentum=μ)
        Momentum (average)   v ← β v + (1 − β) g,      w ← w − η v         SGD(momentum=β, dampening=β)
        Nesterov             g taken where μ v leads,  else as velocity    SGD(momentum=μ, nesterov=True)
        AdaGrad              s ← s + g²,               w ← w − η g / (√s + ε)
        RMSprop              s ← α s + (1 − α) g²,     w ← w − η g / (√s + ε)
        Adam                 m, s: averages of g, g²,  w ← w − η m̂ / (√ŝ + ε)   m̂, ŝ: divided by 1 − βᵗ
    """,
    "overfitting": """
        weight decay λ     L(w) + λ/2 ‖w‖²,  that is  w ← w − η (g + λ w)
        dropout p          h ← h ⊙ m / (1 − p),  m = 0 with probability p, 1 else; nothing in evaluation

        gap = accuracy on the 300 images trained on − accuracy on images never seen
    """,
    "hyperparameters": """
        minimise over (η, λ):  loss on the validation split after training with learning rate η and weight decay λ

        grid        all pairs of a few values each
        random      log η, log λ uniform
        Bayesian    TPE: p(θ | good trials) / p(θ | the others) is made as great as may be
    """,
    "gradient-check": """
        numerical   ∂f/∂xᵢ ≈ (f(x + h eᵢ) − f(x − h eᵢ)) / 2h,   error O(h²) + O(ε/h)

        relative error   |a − b| / max(|a|, |b|, a floor),   a by backward, b by the difference
    """,
    "curvature": """
        near w:  L(w + d) ≈ L(w) + g·d + ½ dᵀ H d,   g = ∇L,  H = ∇²L,   λ the largest eigenvalue of H, with eigenvector u

        gradient descent:  w ← w − η g.   Along u on a quadratic loss:  e ← (1 − ηλ) e

        |1 − ηλ| < 1   ⟺   λ < 2/η:   beyond the limit 2/η each step is longer than the last, to and fro

        H v = ∇ (g · v), one more backward pass;  Lanczos: from v, H v, H² v, … the matrix Qᵀ H Q, whose largest eigenvalue is λ
    """,
    "mlp-vs-cnn": """
        dense layer         aᵢ = Σⱼ Wᵢⱼ xⱼ + bᵢ                      a weight for each pair of unit and pixel
        convolution         a[k, u, v] = Σ W[k, c, i, j] x[c, u + i, v + j] + b[k]      one small W for all places

        parameters          n_in · n_out + n_out       against       k · c · h · w + k
    """,
}
"""The mathematics of each experiment."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for, write the pages; 1 if a claim was not seen in its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"experiments; default: all ({', '.join(EXPERIMENTS)})"
    )
    parser.add_argument("--full", action="store_true", help="full sizes instead of quick ones")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tutorial", action="store_true", help="bring the tutorial up to date, and nothing else")
    given = parser.parse_args(arguments)
    if given.tutorial:
        TUTORIAL.write_text(tutorial(TUTORIAL.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    unknown = [name for name in given.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"no experiment is called {unknown[0]!r}")
    settings = Settings(data=given.data, quick=not given.full, seed=given.seed, data_dir=given.data_dir)
    PAGES.mkdir(parents=True, exist_ok=True)
    FIGURES.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in given.names or list(EXPERIMENTS):
        with tempfile.TemporaryDirectory() as folder:
            result = run(name, settings, Path(folder))
            picture = small((Path(folder) / f"{name}.png").read_bytes())
        (FIGURES / f"{name}.png").write_bytes(picture)
        (PAGES / f"{name}.md").write_text(page(EXPERIMENTS[name], result, given.full), encoding="utf-8")
        failed |= not result.passed
        print(f"{name}: {len(picture) / 1000:.0f} kB, claim {'seen' if result.passed else 'NOT SEEN'}", flush=True)
    (PAGES / "README.md").write_text(index(), encoding="utf-8")
    return int(failed)


def page(experiment: Experiment, result: Result, full: bool) -> str:
    """The page of an experiment, in Markdown."""
    name = experiment.name
    data = f" --data {result.settings['data']}" if result.settings["data"] != "digits" else ""
    sizes = "in full size" if full else "in quick size"
    text = f"""\
# {experiment.title}

**Claim.** {experiment.claim}

*Source:* {experiment.source}

## The mathematics

```text
{textwrap.dedent(FORMULAS[name]).strip(chr(10)).rstrip()}
```

## What is run, and how to read the figure

{wrapped(inspect.getdoc(type(experiment)) or "")}

![{alt(experiment.alt_text(result.numbers))}](../figures/{name}.png)

## What was seen

On the {result.settings["data"]}, {sizes}, seed {result.settings["seed"]}:

{quoted(result.finding)}

## Do it

```sh
kobai lab {name}{data}
kobai lab {name} --data mnist --data-dir data
kobai lab {name}{data} --quick
```

Figure (PNG and SVG) and numbers (JSON) are written to a folder, which `kobai report` makes a page of. Source:
[`{Path(inspect.getfile(type(experiment))).name}`](../../src/kobai/lab/experiments/{Path(inspect.getfile(type(experiment))).name}).

[All experiments](README.md)
"""
    return text


def index() -> str:
    """The index of docs/lab."""
    rows = [f"| [{e.title}]({name}.md) | {e.claim} | `kobai lab {name}` |" for name, e in EXPERIMENTS.items()]
    return INDEX.replace("ROWS", "\n".join(rows))


INDEX = """\
# The lab

Why does a network train, or not? The lab measures it, names it, and cures it.

| | |
|---|---|
| [Tutorial](../tutorial.md) | from a net that does not train to one that does |
| [From PyTorch and back](../from-pytorch.md) | the doctor for a program of PyTorch: `kobai diagnose script.py::model,loader` |
| [Diseases](diseases.md) | what the doctor finds: each disease with its thresholds, their reasons, its cure |
| [The doctor's exam](exam.md) | what he says of situations from public reports, and what other tools say |
| [What he had never met](exam_fresh.md) | the same of situations that were collected by somebody who did not know him |
| [And once more](exam_second_fresh.md) | a second such collection, after more work on the doctor |
| [A third time](exam_third_fresh.md) | a third one, most of it convolutional, recurrent, graph and generative nets |
| [`kobai compare`](compare.md) | any product of conditions, side by side, from equal seeds |
| [`kobai tune`](tune.md) | search of hyper-parameters, on the validation split only |
| [`kobai report`](report.md) | the story of a run in one HTML file |

## Experiments

Thirteen claims about training, each measured on real data: a figure, numbers, and a finding that is computed from them. A test
of each asserts the claim, and fails where the phenomenon is absent.

| experiment | claim | command |
|---|---|---|
ROWS

```sh
kobai lab list
kobai lab all --quick
```

The figures in these pages are made by `python scripts/lab_docs.py` in quick sizes on the embedded digits; `--full` and
`--data mnist` take longer and show the same more smoothly. A condition has one colour, line and marker in all figures; the
colours are those of Okabe and Ito, which every kind of colour vision tells apart.
"""


def tutorial(text: str) -> str:
    """The tutorial with the output of its commands as it is now; they are run one after another in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

        def again(found: re.Match[str]) -> str:
            tail, line, _ = found.groups()
            words = shlex.split(line.replace("\\\n", " "))
            command = [sys.executable, "-m", "kobai", *words[1:]]
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # in the order in which a terminal shows them
            )
            if done.returncode not in (0, 1) or "Traceback" in done.stdout:
                raise RuntimeError(f"{line}: {done.stdout}")
            print(f"$ {line}\n  exit code {done.returncode}", flush=True)
            lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
            lines = ["…", *lines[-int(tail) :]] if tail and len(lines) > int(tail) else lines
            option = f" tail={tail}" if tail else ""
            return f"```console{option}\n$ {line}\n" + "".join(f"{line}\n" for line in lines) + "```\n"

        return BLOCK.sub(again, text)


def small(content: bytes) -> bytes:
    """A PNG in a palette of 256 colours, not above LARGEST."""
    from PIL import Image  # comes with matplotlib, which has drawn it

    image = Image.open(io.BytesIO(content)).convert("RGB")
    for columns in (1200, 1000, 860, 720):
        scale = min(1.0, columns / image.width)
        drawn = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        drawn.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
        if out.tell() < LARGEST:
            break
    return out.getvalue()


def wrapped(text: str) -> str:
    """Paragraphs in lines of a readable length; what is indented is kept."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text))
    plain = [p.replace("``", "`") for p in parts]
    return "\n\n".join(p if p.startswith((" ", "-", ">>>")) else textwrap.fill(" ".join(p.split()), 124) for p in plain)


def quoted(text: str) -> str:
    """A paragraph as a quotation."""
    return textwrap.fill(" ".join(text.split()), 122, initial_indent="> ", subsequent_indent="> ")


def alt(text: str) -> str:
    """Text in an image's brackets."""
    return " ".join(text.split()).replace("[", "(").replace("]", ")")


if __name__ == "__main__":
    sys.exit(main())
