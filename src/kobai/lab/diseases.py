"""The catalogue of diseases: for each what it is, the numbers that tell it, whence they come, and what follows from it.

A threshold is no law: between a healthy net and a sick one lies a range, and each number here is put into that range. Where a
number depends on depth, the rule asks for two things, the total over all layers and the factor per layer: a net of 50 layers
may lose what one of 3 must not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Disease:
    """An entry of the catalogue."""

    name: str
    title: str
    rule: str
    reason: str
    source: str
    follows: tuple[str, ...]
    """Diseases of which this one may be a mere consequence."""


SATURATED, SATURATED_SOME = 0.3, 0.15
HARD = {"hardtanh": (0.6, 0.45)}
"""Errors and warnings for activations that are flat beyond 1, as a third of N(0, 1) is."""
COLLAPSED, COLLAPSED_SOME, COLLAPSE_FACTOR = 3e-3, 1e-2, 0.5
EXPLODED, EXPLODE_FACTOR, EXPLODED_SIZE = 25.0, 2.0, 10.0
DEAD, DEAD_SOME = 0.6, 0.4
VANISHED, VANISHED_SOME, VANISH_FACTOR = 5e-3, 2e-2, 0.5
GRADIENT_GREW, GRADIENT_FACTOR, GRADIENT_NORM, GRADIENT_NORM_SOME = 100.0, 2.0, 100.0, 30.0
ALIKE = 0.5
RATIO_LARGE, RATIO_LARGE_SOME, RATIO_SMALL, RATIO_SMALL_SOME, RATIO_GOOD = 0.2, 0.15, 3e-6, 3e-5, 3e-3
LOSS_GREW = 1.5
INPUT_LARGE, INPUT_SMALL, FEATURES_APART = 10.0, 1e-2, 100.0
CONSTANT = 1e-5

_ALL_BUT_DATA = ("non-finite", "no-signal", "input-scale")

DISEASES: dict[str, Disease] = {
    disease.name: disease
    for disease in (
        Disease(
            "non-finite",
            "numbers that are not finite",
            "any output, weight, gradient or loss is NaN or infinite",
            "Nothing can be learnt from them, and they spread: one NaN spoils every number computed with it.",
            "IEEE 754, 6.2",
            (),
        ),
        Disease(
            "no-signal",
            "no signal",
            f"inputs that differ from sample to sample by less than {CONSTANT:g} of their size; one "
            f"class in a whole batch; or no "
            "parameter that is given a gradient",
            "From inputs that are all alike nothing can be told apart, and without a gradient nothing is changed.",
            "definition of the loss's gradient",
            ("non-finite",),
        ),
        Disease(
            "input-scale",
            "wrong scale of the inputs",
            f"root mean square above {INPUT_LARGE:g} or below {INPUT_SMALL:g}, or one feature "
            f"{FEATURES_APART:g} times as wide as the "
            "typical one; only a note where the first layer is normalised",
            "Initialisers and usual learning rates assume inputs of size 1. The loss's curvature "
            "along a weight grows as the square "
            "of its input, and with it the greatest stable learning rate shrinks.",
            "LeCun, Bottou, Orr, Müller, Efficient BackProp, 1998, section 4.3",
            ("non-finite", "no-signal"),
        ),
        Disease(
            "symmetric",
            "symmetric units",
            f"more than {ALIKE:.0%} of a layer's units have the weights and the gradients of another one",
            "Units that are alike get the same gradient and stay alike for ever: the layer is as "
            "good as one unit. Weights that are "
            "alike but get different gradients (a branch that begins at zero) are healthy.",
            "Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.4",
            ("non-finite", "no-signal"),
        ),
        Disease(
            "saturated",
            "saturated activations",
            f"in a hidden layer {SATURATED:.0%} (warning: {SATURATED_SOME:.0%}) of the outputs lie "
            f"where the slope is below 5 % of its greatest",
            "A flat activation passes no gradient. With matching weights its argument has a standard "
            "deviation of about 1, and less "
            "than 4 % of tanh's outputs, and none of sigmoid's, are flat.",
            "LeCun et al. 1998, section 4.4; Glorot and Bengio, AISTATS 2010, section 3",
            (*_ALL_BUT_DATA, "symmetric"),
        ),
        Disease(
            "exploding-activations",
            "exploding activations",
            f"the signal grows by more than {EXPLODED:g} in all and {EXPLODE_FACTOR:g} per layer, to "
            f"a size above {EXPLODED_SIZE:g}",
            "With He's variance 2/fan_in the factor of a rectifier's layer is 1; a residual sum "
            "without normalisation has √2. What "
            "grows faster does so exponentially in the depth.",
            "He, Zhang, Ren, Sun, ICCV 2015, section 2.2; Hanin and Rolnick, NeurIPS 2018",
            (*_ALL_BUT_DATA, "symmetric"),
        ),
        Disease(
            "collapsed",
            "collapsed activations",
            f"what differs from sample to sample shrinks below {COLLAPSED:g} (warning: "
            f"{COLLAPSED_SOME:g}) of what the inputs had, and by more "
            f"than {COLLAPSE_FACTOR:g} per layer",
            "The last layers see almost the same for every sample: the loss stays at chance, and the "
            "gradient of every weight, a "
            "product with its input's variation, is as small.",
            "Glorot and Bengio 2010, section 4.2; He et al. 2015, section 2.2",
            (*_ALL_BUT_DATA, "symmetric", "saturated", "dying-relu"),
        ),
        Disease(
            "dying-relu",
            "dying ReLU",
            f"{DEAD:.0%} (warning: {DEAD_SOME:.0%}) of a layer's units are 0 for every sample of the batch",
            "A unit that is never positive has slope 0 for every sample, and no gradient ever brings "
            "it back. Some dead units are "
            "normal, and in deep narrow nets more of them, because all samples look alike there.",
            "Lu, Shin, Su, Karniadakis, arXiv:1903.06733; Maas, Hannun, Ng, ICML 2013",
            (*_ALL_BUT_DATA, "symmetric", "exploding-activations"),
        ),
        Disease(
            "vanishing-gradient",
            "vanishing gradient",
            f"from the last hidden layer to the first the gradient shrinks below {VANISHED:g} "
            f"(warning: {VANISHED_SOME:g}), and by more than "
            f"{VANISH_FACTOR:g} per layer",
            "Sigmoid's slope is at most 1/4: with weights that keep the signal's size every layer "
            "takes three quarters of the "
            "gradient, and the first layers learn thousands of times more slowly than the last.",
            "Hochreiter 1991; Bengio, Simard, Frasconi, IEEE TNN 1994; Glorot and Bengio 2010",
            (*_ALL_BUT_DATA, "symmetric", "saturated", "collapsed", "dying-relu"),
        ),
        Disease(
            "exploding-gradient",
            "exploding gradient",
            f"norm of all weights' gradients above {GRADIENT_NORM:g} (warning: "
            f"{GRADIENT_NORM_SOME:g}), or growing from the last hidden layer to "
            f"the first by more than {GRADIENT_GREW:g} in all and {GRADIENT_FACTOR:g} per layer",
            "The mean cross-entropy of a net with outputs of size 1 has a gradient of norm 1 to 5. A "
            "step along one a hundred times "
            "as long leaves the region for which it was computed.",
            "Pascanu, Mikolov, Bengio, ICML 2013",
            (*_ALL_BUT_DATA, "symmetric", "saturated", "exploding-activations"),
        ),
        Disease(
            "rate-too-large",
            "learning rate too large",
            f"median update-to-weight ratio above {RATIO_LARGE:g} (warning: {RATIO_LARGE_SOME:g}), while "
            f"the loss does not fall; or a loss of the same batch that grows by {LOSS_GREW:g}",
            "A ratio of about 1e-3 is usual; Adam's first steps have lr divided by the weights' "
            "size, up to some 1e-2. At 0.2 five steps "
            "write every weight anew. Above 2 / curvature gradient descent diverges.",
            "Karpathy, CS231n notes, 2015; LeCun et al. 1998, section 5",
            (
                *_ALL_BUT_DATA,
                "symmetric",
                "exploding-activations",
                "exploding-gradient",
                "saturated",
                "collapsed",
                "dying-relu",
            ),
        ),
        Disease(
            "rate-too-small",
            "learning rate too small",
            f"largest update-to-weight ratio of all layers below {RATIO_SMALL:g} (warning: {RATIO_SMALL_SOME:g})",
            "At 1e-6 a million steps are needed for a weight to change by its own size.",
            "Karpathy, CS231n notes, 2015",
            (*_ALL_BUT_DATA, "symmetric", "collapsed", "dying-relu", "vanishing-gradient", "saturated"),
        ),
    )
}
"""Diseases in order of causes: of two that are found together, the earlier is likelier to be the root."""
