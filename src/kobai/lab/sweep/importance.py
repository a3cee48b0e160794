"""How much each setting matters for the score of a trial."""

from __future__ import annotations

import math
from collections.abc import Iterable

from kobai.lab.sweep.needs_optuna import calm, require
from kobai.lab.sweep.tune_plan import Trial, TunePlan
from kobai.lab.sweep.values import Range, spelt

LEAST = 10
"""With fewer trials, shares would be noise."""


def importances(plan: TunePlan, trials: Iterable[Trial]) -> dict[str, float]:
    """Shares by setting, the greatest first, by PED-ANOVA (arXiv:2304.10255); empty for few trials or a single setting."""
    done = [
        t
        for t in trials
        if t.state in ("complete", "pruned") and t.value is not None and len(t.parameters) == len(plan.space)
    ]
    varied = {n for n in plan.space if len({spelt(t.parameters[n]) for t in done}) > 1}
    if len(done) < LEAST or not varied or len(plan.space) < 2 or len({t.value for t in done}) < 2:
        return {}
    optuna = require()
    kinds = {}
    for name, what in plan.space.items():
        if not isinstance(what, Range):
            kinds[name] = optuna.distributions.CategoricalDistribution([spelt(value) for value in what])
        elif what.whole:
            kinds[name] = optuna.distributions.IntDistribution(int(what.low), int(what.high), log=what.log)
        else:
            kinds[name] = optuna.distributions.FloatDistribution(what.low, what.high, log=what.log)
    with calm():
        copy = optuna.create_study(direction="maximize" if plan.greatest else "minimize")
        for t in done:
            params = {n: v if isinstance(plan.space[n], Range) else spelt(v) for n, v in t.parameters.items()}
            copy.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=t.value))
        found = optuna.importance.get_param_importances(
            copy, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=sorted(varied)
        )
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}
