"""The rule of norms that hide what the net needs: an epsilon above the variance, or the size of the inputs divided away."""

from __future__ import annotations

from kobai import nn
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_batches import without
from kobai.lab.doctor.cures_of_capacity import set_options
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import flow
from kobai.lab.doctor.rules.data import FAULTS
from kobai.lab.doctor.rules.view import NORMALISERS, View

SWALLOWED, USUAL = 1.0, 1e-5
"""Epsilon over the variance; the usual epsilon."""
TOLD, FREED = 0.9, 0.8
"""Held-out loss of a net that tells nothing, over that of guessing; and the part of it that is left without the norm."""

NORM_HIDES = Disease(
    "norm-hides",
    "a norm that hides what the net needs",
    f"of a copy whose loss of samples held out ends above {TOLD:g} of that of guessing, a norm whose eps is above "
    f"{SWALLOWED:g} of the variance of its inputs, or one over each sample's own numbers before all weights; at "
    f"eps={USUAL:g}, or without it, a copy's loss of samples held out ends at less than {FREED:.0%} of that",
    "(x − mean)/√(var + eps) with eps above var divides by √eps: the signal shrinks at each norm, and none is normalised. "
    "A norm over the numbers of one sample makes a loud and a soft one alike, however the weights behind it are trained.",
    "Ioffe and Szegedy 2015, algorithm 1 (eps is for stability alone); Ba, Kiros, Hinton, arXiv:1607.06450, table 1 "
    "(invariance to re-scaling of a single sample)",
    FAULTS,
    certain=True,
)


def norm_hides(view: View) -> Finding | None:
    """The held-out loss of copies with the usual epsilon, or without norms of the inputs."""
    assert view.trials is not None
    if view.ledger is None or view.chance is None:
        return None
    base = view.trials.course()
    if base.held is None or base.held < TOLD * view.chance:
        return None
    for cure, names, evidence, cause in _suspects(view):
        other = view.trials.course(f"with another norm at {', '.join(names)}", cure.apply)
        if other.held is not None and other.held < FREED * base.held:
            return NORM_HIDES.found(
                evidence,
                Evidence("loss of samples held out, over that without", base.held / other.held, 1 / FREED, True),
                cause=cause,
                # A net that knows the samples by heart shows by others alone what helps, and its loss would not fall.
                cure=cure if other.end < base.end else Cure(cure.code),
                where=names,
            )
    return None


def _suspects(view: View) -> list[tuple[Cure, list[str], Evidence, str]]:
    """Norms that may hide something, each with its cure."""
    assert view.ledger is not None
    found: list[tuple[Cure, list[str], Evidence, str]] = []
    swallowing: dict[str, float] = {}
    weighed = False
    for passage in flow(view.ledger.fresh, view.ledger.few, training=True)[0]:
        x, eps = passage.input, getattr(passage.module, "eps", None)
        if isinstance(passage.module, NORMALISERS) and x is not None and isinstance(eps, float | int):
            spread = float(x.double().var().item())
            if spread > 0 and eps > SWALLOWED * spread:
                swallowing[passage.name] = eps / spread
            if not weighed and isinstance(passage.module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
                sizes = (x.double() ** 2).reshape(len(x), -1).mean(1).sqrt()
                found.append((
                    without([passage.name]),
                    [passage.name],
                    Evidence("size of the largest sample, over that of the smallest, which the norm makes alike",
                             float((sizes.max() / (sizes.min() + 1e-12)).item()), 1.0, True, severity="warning"),
                    f"{type(passage.module).__name__} {passage.name!r} normalises each sample by itself before any weight, "
                    "and the targets depend on what that takes away: how loud, how bright or how much a sample is.",
                ))  # fmt: skip
        weighed = weighed or passage.weight is not None
    if swallowing:
        name, times = max(swallowing.items(), key=lambda each: each[1])
        eps = float(view.modules[name].eps)
        found.insert(0, (
            set_options([(path, "eps", USUAL) for path in swallowing]),
            list(swallowing),
            Evidence(f"eps over the variance of the inputs of {name!r}", times, SWALLOWED, True, severity="error"),
            f"{name!r} has eps={eps:g}, beside a variance of {eps / times:.2g}: it divides by √eps, and normalises nothing. "
            "The second argument of a norm is eps, and no number of channels.",
        ))  # fmt: skip
    return found
