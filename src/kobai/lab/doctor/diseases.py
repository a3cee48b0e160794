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


# Activations
SATURATED, SATURATED_SOME = 0.3, 0.15
HARD = {"hardtanh": (0.6, 0.45)}
"""Errors and warnings for activations that are flat beyond 1, as a third of N(0, 1) is."""
COLLAPSED, COLLAPSED_SOME, COLLAPSE_FACTOR = 3e-3, 1e-2, 0.5
EXPLODED, EXPLODE_FACTOR, EXPLODED_SIZE = 25.0, 1.5, 10.0
BLIND, SCORES_HEAVY = 3.0, 3.0
"""Loss over that of the best output that is one for all samples, and weights of the last layer over those that fit."""
DEAD, DEAD_SOME, DEAD_FEW = 0.6, 0.4, 0.9
FEW = 16
"""Samples. Fewer have one class, or leave half of the units at 0, by chance."""

# Gradients
VANISHED, VANISHED_SOME, VANISH_FACTOR = 5e-3, 2e-2, 0.5
GRADIENT_GREW, GRADIENT_FACTOR, GRADIENT_NORM, GRADIENT_NORM_SOME = 100.0, 2.0, 100.0, 30.0
RECURRENT = 5.0
"""Times the size of an orthogonal matrix's weights, which is 1/√n; initialisers give 0.6 to 1, and training up to 2 or so."""
ALIKE = 0.5

# Updates
RATIO_LARGE, RATIO_LARGE_SOME, RATIO_SMALL, RATIO_SMALL_SOME, RATIO_GOOD = 0.2, 0.15, 1e-5, 1e-4, 3e-3
LOSS_GREW, OVERSHOOT, PATIENCE = 1.5, 1.2, 30
BETTER, GUESSED, FASTER = 0.1, 0.02, 0.1
"""Part of a loss by which a cure must lower it, and by which one that is learnt is below that of a guess; and of a rate at
which a training diverged, what is left."""

# Data
INPUT_LARGE, INPUT_SMALL, FEATURES_APART, OFFSET = 10.0, 1e-2, 100.0, 10.0
MADE_UP = 0.1
"""Signal after a normalised first stage that shows that it has made up for the inputs' size."""
TARGET_LARGE, TARGET_REACHED = 10.0, 0.1
CONSTANT = 1e-5
UNSHUFFLED = -5.0
"""Standard deviations: one shuffled batch in three million has so few changes of label."""

FLOOR, FLOOR_SOME = 0.5, 0.1
"""Least loss that outputs can reach, over that of one output for all samples."""

LEARNT = 0.5
"""Loss, over that of one output for all samples, below which a net is seen to train, whatever it looks like."""

# Weights over those that fit the activation, from which on they are blamed
HEAVY, LIGHT = 1.5, 0.6

_DATA = ("non-finite", "wrong-labels", "no-signal", "input-scale", "target-scale")

DISEASES: dict[str, Disease] = {
    disease.name: disease
    for disease in (
        Disease(
            "non-finite",
            "numbers that are not finite",
            "any input, target, weight, output, loss or gradient is NaN or infinite",
            "Nothing can be learnt from them, and they spread: one NaN spoils every number computed with it.",
            "IEEE 754, 6.2",
            (),
        ),
        Disease(
            "wrong-labels",
            "wrong labels",
            "labels below 0 or not below the number of scores, where the loss function refuses them; -100 is left out",
            "A label is the place of its score. Labels counted from 1 are the usual case.",
            "definition of the cross-entropy of class indices",
            (),
        ),
        Disease(
            "no-signal",
            "no signal",
            f"inputs that differ from sample to sample by less than {CONSTANT:g} of their size; one target in a whole batch of "
            f"{FEW} or more (a warning where there are two classes, of which one may be rare); no parameter that is given a "
            "gradient; or a gradient that is 0 for every weight, while the last layer is given a signal",
            "From inputs that are all alike nothing can be told apart, and without a gradient nothing is changed.",
            "definition of the loss's gradient",
            ("non-finite",),
        ),
        Disease(
            "unshuffled",
            "samples in order of class",
            f"a batch that lacks classes, in which neighbours differ so seldom that chance is {-UNSHUFFLED:g} standard "
            "deviations away",
            "Each batch's gradient is that of its few classes, and the net forgets the others meanwhile. A batch that is "
            "ordered and holds all classes is harmless.",
            "LeCun et al. 1998, section 4.2; test of runs: Wald and Wolfowitz 1940, Barton and David, Biometrika 1957",
            ("non-finite", "wrong-labels"),
        ),
        Disease(
            "bounded-scores",
            "probabilities in the place of scores",
            f"a last activation with bounds (softmax, sigmoid, tanh), within which the loss cannot fall below {FLOOR:g} "
            f"(warning: {FLOOR_SOME:g}) of that of one output for all samples, while scores without bounds cost less than half",
            "A loss that takes scores squashes them itself. Squashed twice, C classes cost log(1 + (C − 1)/e) at least, and "
            "the gradient is that of one softmax times that of the other: it learns slowly, at any rate.",
            "definition of the cross-entropy of scores; Bridle, Neurocomputing, 1990",
            ("non-finite", "wrong-labels"),
        ),
        Disease(
            "input-scale",
            "wrong scale of the inputs",
            f"root mean square above {INPUT_LARGE:g} or below {INPUT_SMALL:g}, or {OFFSET:g} times what differs between "
            f"samples, unless the first layer is normalised and passes on a signal above {MADE_UP:g}; or one feature "
            f"{FEATURES_APART:g} times as wide as the typical one",
            "Initialisers and usual learning rates assume inputs of mean 0 and size 1. The loss's curvature along a weight "
            "grows as the square of its input, and with it the greatest stable learning rate shrinks; a mean m beside a "
            "spread s makes the condition number at least n m²/s² for n inputs.",
            "LeCun, Bottou, Orr, Müller, Efficient BackProp, 1998, sections 4.3 and 5.3",
            ("non-finite", "no-signal"),
        ),
        Disease(
            "target-scale",
            "wrong scale of the targets",
            f"root mean square of a regression's targets above {TARGET_LARGE:g}, while the outputs have less than "
            f"{TARGET_REACHED:g} of that",
            "Outputs begin at a size of about 1. The gradient of a squared error grows as the targets, so that plain steps "
            "overshoot; steps that are divided by the gradient's size do not, and take targets/rate steps to arrive.",
            "Bishop, Neural Networks for Pattern Recognition, 1995, section 8.2",
            ("non-finite", "no-signal"),
        ),
        Disease(
            "symmetric",
            "symmetric units",
            f"more than {ALIKE:.0%} of a layer's units have the weights and the gradients of another one",
            "Units that are alike get the same gradient and stay alike for ever: the layer is as good as one unit. Weights "
            "that are alike but get different gradients (a branch that begins at zero) are healthy.",
            "Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.4",
            ("non-finite", "wrong-labels", "no-signal"),
        ),
        Disease(
            "saturated",
            "saturated activations",
            f"in a hidden layer {SATURATED:.0%} (warning: {SATURATED_SOME:.0%}) of the outputs lie where the slope is below "
            "5 % of its greatest",
            "A flat activation passes no gradient. With matching weights its argument has a standard deviation of about 1, "
            "and less than 4 % of tanh's outputs, and none of sigmoid's, are flat.",
            "LeCun et al. 1998, section 4.4; Glorot and Bengio, AISTATS 2010, section 3",
            (*_DATA, "symmetric"),
        ),
        Disease(
            "exploding-activations",
            "exploding activations",
            f"the signal grows by more than {EXPLODED:g} in all and {EXPLODE_FACTOR:g} per layer, to a size above "
            f"{EXPLODED_SIZE:g}; or the loss is above {BLIND:g} times that of one output for all samples, and the last layer's "
            f"weights {SCORES_HEAVY:g} times as large as those that fit",
            "With He's variance 2/fan_in the factor of a rectifier's layer is 1; a residual sum without normalisation has √2, "
            "and trains. What grows faster does so exponentially in the depth. Who knows nothing should say nothing.",
            "He, Zhang, Ren, Sun, ICCV 2015, section 2.2; Hanin and Rolnick, NeurIPS 2018; De and Smith, NeurIPS 2020; "
            "Karpathy, A recipe for training neural networks, 2019",
            (*_DATA, "symmetric"),
        ),
        Disease(
            "collapsed",
            "collapsed activations",
            f"what differs from sample to sample shrinks below {COLLAPSED:g} (warning: {COLLAPSED_SOME:g}) of what the inputs "
            f"had, and by more than {COLLAPSE_FACTOR:g} per layer",
            "The last layers see almost the same for every sample: the loss stays at chance, and the gradient of every weight, "
            "a product with its input's variation, is as small.",
            "Glorot and Bengio 2010, section 4.2; He et al. 2015, section 2.2",
            (*_DATA, "symmetric", "saturated", "dying-relu"),
        ),
        Disease(
            "dying-relu",
            "dying ReLU",
            f"{DEAD:.0%} (warning: {DEAD_SOME:.0%}) of a layer's units are 0 for every sample of the batch; {DEAD_FEW:.0%} in "
            f"a batch of fewer than {FEW} samples",
            "A unit that is never positive has slope 0 for every sample, and no gradient ever brings it back. Some dead units "
            "are normal: where samples look alike, as in deep narrow nets, or are few, up to half of them, by chance.",
            "Lu, Shin, Su, Karniadakis, arXiv:1903.06733; Maas, Hannun, Ng, ICML 2013",
            (*_DATA, "symmetric", "exploding-activations"),
        ),
        Disease(
            "vanishing-gradient",
            "vanishing gradient",
            f"from the last hidden layer to the first the gradient shrinks below {VANISHED:g} (warning: {VANISHED_SOME:g}), "
            f"and by more than {VANISH_FACTOR:g} per layer",
            "Sigmoid's slope is at most 1/4: with weights that keep the signal's size every layer takes three quarters of the "
            "gradient, and the first layers learn thousands of times more slowly than the last.",
            "Hochreiter 1991; Bengio, Simard, Frasconi, IEEE TNN 1994; Glorot and Bengio 2010",
            (*_DATA, "symmetric", "saturated", "collapsed", "dying-relu"),
        ),
        Disease(
            "exploding-gradient",
            "exploding gradient",
            f"growing from the last hidden layer to the first by more than {GRADIENT_GREW:g} in all and {GRADIENT_FACTOR:g} "
            f"per layer; or, where the step is in proportion to the gradient (SGD), a norm of all weights' gradients above "
            f"{GRADIENT_NORM:g} (warning: {GRADIENT_NORM_SOME:g}) whose step changes some weight by more than "
            f"{RATIO_LARGE:g} of its size; or recurrent weights {RECURRENT:g} times as large as orthogonal ones",
            "The mean cross-entropy of a net with outputs of size 1 has a gradient of norm 1 to 5. A step along one a hundred "
            "times as long leaves the region for which it was computed. Adam and its like divide by the gradient's size, and "
            "do not mind it.",
            "Pascanu, Mikolov, Bengio, ICML 2013",
            (*_DATA, "symmetric", "saturated", "exploding-activations"),
        ),
        Disease(
            "rate-too-large",
            "learning rate too large",
            f"median update-to-weight ratio above {RATIO_LARGE:g} (warning: {RATIO_LARGE_SOME:g}), while the loss does not "
            f"fall, or rises by {OVERSHOOT:g} on its way; or a loss of the same batch that grows by {LOSS_GREW:g}, and has not "
            f"come back after {PATIENCE} steps; in `treat` also one that ends its training higher than it began",
            "A ratio of about 1e-3 is usual; Adam's first steps have lr divided by the weights' size, up to some 1e-2. At 0.2 "
            "five steps write every weight anew. Above 2 / curvature gradient descent overshoots; up to twice that the loss "
            "may grow at first and come back.",
            "Karpathy, CS231n notes, 2015; LeCun et al. 1998, section 5; Lewkowycz et al., arXiv:2003.02218",
            (
                *_DATA,
                "bounded-scores",
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
            f"largest update-to-weight ratio of all layers below {RATIO_SMALL:g} (warning: {RATIO_SMALL_SOME:g}); not judged "
            "where a schedule may mean it",
            "The reciprocal is the number of steps, all in one direction, in which a weight changes by its own size: ten "
            "thousand at 1e-4. Careful fine-tuning has some 5e-4.",
            "Karpathy, CS231n notes, 2015; Devlin et al., BERT, NAACL 2019, appendix A.3 (rates for fine-tuning)",
            (
                *_DATA,
                "bounded-scores",
                "symmetric",
                "collapsed",
                "dying-relu",
                "vanishing-gradient",
                "saturated",
                "exploding-activations",
            ),
        ),
        Disease(
            "no-better-than-guessing",
            "no better than guessing",
            f"found by `treat` only: after its steps the loss is not finite, or not below that of one output for all samples "
            f"by {GUESSED:.0%} (a warning if it falls)",
            "A net that says the same of every sample has learnt nothing of what tells them apart, however healthy its layers "
            "look.",
            "definition of the loss; Karpathy, A recipe for training neural networks, 2019",
            (
                *_DATA,
                "bounded-scores",
                "unshuffled",
                "symmetric",
                "saturated",
                "exploding-activations",
                "collapsed",
                "dying-relu",
                "vanishing-gradient",
                "exploding-gradient",
                "rate-too-large",
                "rate-too-small",
            ),
        ),
    )
}
"""Diseases in order of causes: of two that are found together, the earlier is likelier to be the root."""
