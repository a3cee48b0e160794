"""The catalogue of diseases, and the rules that find them. Thresholds and entries are defined beside their rules.

A threshold is no law: there is a range between healthy nets and sick ones, and each threshold lies in it. Where a number
depends on depth, a rule looks at both the total over all layers and the factor per layer: 50 layers may lose what 3 must not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from kobai.lab.doctor.findings import Disease, Finding
from kobai.lab.doctor.rules import (
    activations,
    answers,
    backward,
    batches,
    capacity,
    choices,
    columns,
    counted,
    course,
    data,
    epochs,
    forward,
    gradients,
    independence,
    kinds,
    leaks,
    losses,
    modes,
    neighbours,
    norms,
    numbers,
    optimisers,
    order,
    outputs,
    pairs,
    reads,
    recurrence,
    sayable,
    scales,
    schedules,
    settings,
    steering,
    trained,
    units,
    unused,
    updates,
    validation,
)
from kobai.lab.doctor.rules.view import View

Rule: TypeAlias = Callable[[View], Finding | None]


@dataclass(frozen=True)
class Examination:
    """A rule, what is right where it finds nothing, and what a view must have for it to look at."""

    rule: Rule
    right: str
    needs: Callable[[View], bool] = lambda view: True


def optimizer(view: View) -> bool:
    """Whether the user's own optimiser is there."""
    return view.optimizer is not None


def ledger(view: View) -> bool:
    """Whether it was looked at who takes part in training."""
    return view.ledger is not None


def trials(view: View) -> bool:
    """Whether copies can be trained."""
    return view.trials is not None


def both(view: View) -> bool:
    """Whether copies can be trained with the user's own optimiser, and at the rate that it trains with."""
    return optimizer(view) and trials(view) and not view.settling


def held(view: View) -> bool:
    """Whether there are validation data."""
    return bool(view.validation)


def long(view: View) -> bool:
    """Whether there are epochs to look back on."""
    return len(view.history) > 1


def planned(view: View) -> bool:
    """Whether there is a schedule, and the first epoch is over."""
    return view.plan is not None and len(view.history) == 1


def both_sides(view: View) -> bool:
    """Whether epochs have been validated, on data that are at hand."""
    return bool(view.history) and bool(view.validation)


def classified(view: View) -> bool:
    """Whether targets are labels, of samples or of the places of images."""
    return view.classes is not None or view.binary or data.of_places(view) is not None


COMPARED = (
    Examination(validation.prepared_otherwise, "validation inputs are like training inputs", held),
    Examination(validation.seen_in_training, "validation samples are new to the net", held),
    Examination(leaks.windows_overlap, "validation windows do not overlap with training windows", held),
    Examination(leaks.near_duplicates, "validation samples are no near copies", held),
)
"""Of the data alone, where there are validation data; ``Doctor`` makes these once."""

LABELLED = (Examination(validation.labelled_otherwise, "validation labels are those of training", held),)
MODES = (Examination(batches.modes_apart, "evaluation is as good as training on the same samples"),)

OVER_EPOCHS = (
    Examination(epochs.falls_back, "the loss does not rise again", long),
    Examination(epochs.schedule_ended, "the learning rate is not yet nothing", long),
    Examination(epochs.overfitting, "validation does not grow worse", long),
    Examination(schedules.steps_late, "the loss does not stand still before the schedule steps", long),
    Examination(schedules.too_long, "the schedule is as long as the training", planned),
)
"""Of the losses of the epochs; ``Doctor`` makes these after each."""

BOTH_SIDES = (
    Examination(epochs.validation_worse, "validation is better than guessing", both_sides),
    Examination(epochs.validation_easier, "validation is no easier than training", both_sides),
)
"""Of the losses of both sides; ``Doctor`` makes these, LABELLED and MODES where they are apart."""

ENDS = (
    Examination(losses.mixed_targets, "each output is compared with a target of its own"),
    Examination(reads.read_otherwise, "the scores of a target lie along one axis"),
    Examination(losses.constant_loss, "the loss depends on the outputs"),
    Examination(losses.no_least_loss, "the loss is one of such outputs and targets"),
    Examination(outputs.bounded_scores, "the outputs can reach what the loss asks for"),
)
"""Of the end of the model and the loss function, which stay the same in a training; ``Doctor`` makes these once."""

EXAMINATIONS: tuple[Examination, ...] = (
    Examination(data.wrong_labels, "labels are places of scores", lambda view: view.classes is not None),
    Examination(losses.refused, "the loss takes outputs and targets", lambda view: view.output is not None),
    Examination(numbers.non_finite, "all numbers are finite"),
    Examination(data.constant_inputs, "inputs differ from sample to sample"),
    Examination(data.alike_targets, "targets differ"),
    Examination(data.unshuffled, "samples are in no order of class", lambda view: view.classes is not None),
    *ENDS,
    Examination(optimisers.uphill, "steps go downhill", lambda view: optimizer(view) and ledger(view)),
    Examination(optimisers.schedule_left, "no schedule has taken the rate to nothing", optimizer),
    Examination(optimisers.decay, "weight decay leaves the net what it learns", both),
    Examination(optimisers.momentum, "momentum does not run away", optimizer),
    Examination(settings.forgets, "the optimizer remembers its steps", lambda view: optimizer(view) and ledger(view)),
    Examination(settings.setting, "no setting of the optimizer takes away what the net learns", both),
    Examination(data.rare_class, "no class is rare", classified),
    Examination(columns.missing_as_number, "no number stands for what is missing", ledger),
    Examination(columns.other_units, "columns are in one unit", ledger),
    Examination(columns.two_scales, "samples are of one scale", ledger),
    Examination(columns.axes_in_another_order, "images have their channels first", ledger),
    Examination(columns.labels_from_one, "labels are counted from 0", ledger),
    Examination(columns.idle_columns, "no column is constant or twice there", ledger),
    Examination(kinds.kinds_as_number, "no column of kinds is one number", ledger),
    Examination(kinds.labels_as_numbers, "no names of classes are fitted as numbers", ledger),
    Examination(kinds.another_label, "no other label fits all samples", ledger),
    Examination(kinds.classes_alike, "no two classes look the same", ledger),
    Examination(kinds.words_alike, "the net tells words apart", ledger),
    Examination(pairs.masks_turned, "masks lie as their images do", ledger),
    Examination(pairs.out_of_step, "inputs and targets are in step", ledger),
    Examination(leaks.target_in_inputs, "no input gives the target away", ledger),
    Examination(steering.few_steer, "no few samples make up the gradient", ledger),
    Examination(steering.free_scale, "no output cancels the loss", ledger),
    Examination(steering.target_jumps, "targets do not go round", ledger),
    Examination(steering.target_tiny, "targets are not tiny beside outputs", ledger),
    Examination(counted.padding_counted, "the loss counts no padding", ledger),
    Examination(counted.weights_inverted, "no frequent class weighs more", ledger),
    Examination(counted.class_left_out, "the loss counts every class", ledger),
    Examination(counted.aims_low, "the loss asks for sure scores", ledger),
    *COMPARED,
    *LABELLED,
    Examination(batches.small_batches, "an output depends on its own sample"),
    Examination(epochs.spoilt_by_steps, "the steps have left the layers well", lambda view: view.first is not None),
    Examination(batches.lost, "outputs differ from sample to sample"),
    Examination(units.no_gradient, "the loss depends on the parameters"),
    Examination(forward.written_in_forward, "only steps change what is to be trained", ledger),
    Examination(trained.not_registered, "what the loss depends on is registered", ledger),
    Examination(trained.not_held, "the optimizer holds what is to be trained", ledger),
    Examination(trained.cut_off, "the loss reaches all that is to be trained", ledger),
    Examination(trained.frozen, "what is frozen is meant to be", ledger),
    Examination(trained.standing, "steps change all that is to be trained", ledger),
    Examination(forward.diagonal_alone, "whole matrices count", ledger),
    Examination(forward.one_module_for_several, "each layer of a list is one of its own", ledger),
    Examination(backward.wrong_backward, "each backward is the derivative of its forward", ledger),
    Examination(recurrence.cut_in_time, "the gradient reaches back through time", ledger),
    Examination(recurrence.fades_in_time, "what was early is not forgotten at once", ledger),
    Examination(kinds.padding_is_a_word, "what stands for padding is no word", ledger),
    Examination(modes.left_in_evaluation, "norms are trained in training mode", ledger),
    Examination(modes.kept, "nothing is kept from batch to batch", ledger),
    Examination(modes.noisy, "evaluation draws no random numbers", ledger),
    Examination(independence.mixed_samples, "no sample is mixed with another", ledger),
    Examination(answers.answer_in_input, "no input is the answer", ledger),
    Examination(unused.unused, "outputs depend on all parts of the inputs", ledger),
    Examination(order.order_unseen, "the net sees an order that matters", ledger),
    Examination(units.symmetric, "units differ"),
    Examination(data.input_scale, "inputs are of usual size"),
    Examination(data.target_scale, "targets are of usual size"),
    Examination(activations.saturated, "activations are not flat"),
    Examination(choices.hard_choice, "no choice is made before it is learnt", ledger),
    Examination(activations.exploding, "the signal does not grow with depth"),
    Examination(scales.overconfident, "the first outputs claim nothing", ledger),
    Examination(activations.collapsed, "the signal reaches the last layer"),
    Examination(activations.dying, "units are alive"),
    Examination(gradients.vanishing, "the gradient reaches the first layer"),
    Examination(gradients.exploding, "the gradient is of usual size"),
    Examination(capacity.no_activation, "the net is more than one linear layer", ledger),
    Examination(sayable.no_offset, "the net can say a constant", ledger),
    Examination(sayable.only_a_plane, "planes tell what a linear net is asked", ledger),
    Examination(sayable.one_place, "outputs see the places that they need", ledger),
    Examination(capacity.bottleneck, "no layer is too narrow", ledger),
    Examination(capacity.dropout, "dropout leaves enough", ledger),
    Examination(norms.norm_hides, "norms leave what the net needs", both),
    Examination(updates.too_large, "steps are not too long", optimizer),
    Examination(updates.too_small, "steps are not too short", optimizer),
    *MODES,
    Examination(counted.one_answer, "more is said than the frequent answer", trials),
    Examination(scales.drowned, "no term of the loss drowns the answer", both),
    Examination(neighbours.unrelated, "similar samples have similar targets", trials),
    Examination(capacity.cannot_fit, f"the net can learn {capacity.BY_HEART} samples by heart", trials),
    Examination(course.guessing, "the loss falls below that of guessing", both),
    *OVER_EPOCHS,
    *BOTH_SIDES,
)
"""All examinations, which ``diagnose`` and ``Doctor`` make; ``tests/lab/test_doctor_conformance.py`` examines each."""

OF_ONE = frozenset(
    (
        *(data.wrong_labels, losses.refused, numbers.non_finite, units.no_gradient),
        *(optimisers.uphill, optimisers.schedule_left, optimisers.decay, optimisers.momentum),
        *(trained.not_registered, trained.not_held, trained.cut_off, trained.frozen, trained.standing),
        *(updates.too_large, updates.too_small),
    )
)
"""Rules that compare no samples, and see in one alone what they see in many."""

RULES = tuple(examination.rule for examination in EXAMINATIONS)

DISEASES: dict[str, Disease] = {
    disease.name: disease
    for disease in (
        numbers.NON_FINITE,
        data.WRONG_LABELS,
        losses.REFUSED,
        losses.MIXED_TARGETS,
        reads.READ_OTHERWISE,
        losses.CONSTANT_LOSS,
        losses.NO_LEAST_LOSS,
        data.NO_SIGNAL,
        forward.WRITTEN_IN_FORWARD,
        trained.NOT_REGISTERED,
        trained.NOT_HELD,
        trained.CUT_OFF,
        trained.FROZEN,
        data.UNSHUFFLED,
        columns.MISSING_AS_NUMBER,
        columns.OTHER_UNITS,
        columns.TWO_SCALES,
        columns.AXES_IN_ANOTHER_ORDER,
        pairs.MASKS_TURNED,
        pairs.OUT_OF_STEP,
        counted.PADDING_COUNTED,
        counted.WEIGHTS_INVERTED,
        counted.CLASS_LEFT_OUT,
        counted.AIMS_LOW,
        validation.PREPARED_OTHERWISE,
        validation.LABELLED_OTHERWISE,
        validation.SEEN_IN_TRAINING,
        leaks.WINDOWS_OVERLAP,
        leaks.NEAR_DUPLICATES,
        leaks.TARGET_IN_INPUTS,
        backward.WRONG_BACKWARD,
        recurrence.CUT_IN_TIME,
        recurrence.FADES_IN_TIME,
        modes.LEFT_IN_EVALUATION,
        modes.STATE_KEPT,
        modes.RANDOM_IN_EVALUATION,
        batches.FEW_SAMPLES,
        epochs.FALLS_BACK,
        epochs.SPOILT_BY_STEPS,
        batches.SIGNAL_LOST,
        independence.MIXED_SAMPLES,
        answers.ANSWER_IN_INPUT,
        unused.UNUSED_INPUTS,
        order.ORDER_UNSEEN,
        outputs.BOUNDED_SCORES,
        optimisers.UPHILL,
        optimisers.WEIGHT_DECAY,
        optimisers.MOMENTUM,
        settings.SETTING,
        settings.FORGETS,
        data.INPUT_SCALE,
        data.TARGET_SCALE,
        units.SYMMETRIC,
        steering.FEW_STEER,
        steering.FREE_SCALE,
        steering.TARGET_JUMPS,
        steering.TARGET_TINY,
        forward.DIAGONAL_ALONE,
        forward.ONE_MODULE,
        capacity.NO_ACTIVATION,
        sayable.NO_OFFSET,
        sayable.PLANE,
        sayable.ONE_PLACE,
        capacity.BOTTLENECK,
        capacity.DROPOUT,
        scales.DROWNED,
        norms.NORM_HIDES,
        activations.SATURATED_ACTIVATIONS,
        choices.HARD_CHOICE,
        activations.EXPLODING_ACTIVATIONS,
        scales.OVERCONFIDENT,
        activations.COLLAPSED_ACTIVATIONS,
        activations.DYING_RELU,
        gradients.VANISHING_GRADIENT,
        gradients.EXPLODING_GRADIENT,
        trained.STANDING,
        updates.RATE_TOO_LARGE,
        updates.RATE_TOO_SMALL,
        batches.MODES_APART,
        epochs.SCHEDULE_ENDED,
        schedules.SCHEDULE_TOO_LONG,
        schedules.STEPS_LATE,
        data.RARE_CLASS,
        counted.ONE_ANSWER,
        neighbours.UNRELATED,
        kinds.KINDS_AS_NUMBER,
        kinds.LABELS_AS_NUMBERS,
        kinds.CLASSES_ALIKE,
        kinds.ANOTHER_LABEL,
        kinds.WORDS_ALIKE,
        kinds.PADDING_IS_A_WORD,
        columns.LABELS_FROM_ONE,
        columns.IDLE_COLUMNS,
        capacity.CANNOT_FIT,
        epochs.OVERFITTING,
        epochs.VALIDATION_WORSE,
        epochs.VALIDATION_EASIER,
        course.NO_BETTER_THAN_GUESSING,
    )
}
"""Diseases in order of causes: of two found together, the earlier is more likely the root."""
