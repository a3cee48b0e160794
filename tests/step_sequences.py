"""Random sequences: a program, the batches it is called with, and what changes before which call."""

from __future__ import annotations

import random
from dataclasses import dataclass

from step_changes import CHANGES
from step_effects import EFFECTS
from step_places import NUMBERS, PLACES, READERS, SITES, USES, VALUES
from step_programs import BODIES, DRIVERS, LOSSES, OPTIMIZERS, SCHEDULES, Effect, Knob, Spec

# --- drawing ----------------------------------------------------------------------------------------------------------

ALL_PLACES = [*PLACES, *NUMBERS]
ALL_EFFECTS = [*EFFECTS]
ALL_CHANGES = [*CHANGES]


KNOBS = 97
"""A change of knob k to its i-th value has the seed k + KNOBS * i."""


@dataclass(frozen=True)
class Change:
    call: int
    kind: str  # of CHANGES, or "knob"
    seed: int


@dataclass(frozen=True)
class Sequence:
    """A program, the batches it is called with, and what changes before which call."""

    seed: int
    spec: Spec
    batches: tuple[tuple[int, int], ...]  # (rows, which)
    changes: tuple[Change, ...]

    def text_of(self, change: Change) -> str:
        rng = random.Random(change.seed)
        if change.kind == "knob":
            i = change.seed % KNOBS
            knob = next((k for k in self.spec.knobs if k.name == f"k{i}"), None)
            return "pass" if knob is None else knob.change(change.seed // KNOBS)
        return CHANGES[change.kind](self.spec, rng) or "pass"

    @property
    def kinds(self) -> set[str]:
        """What happens in it: kinds of changes, places that change, effects."""
        changed = {f"k{change.seed % KNOBS}" for change in self.changes if change.kind == "knob"}
        found = {change.kind for change in self.changes if change.kind != "knob"}
        found |= {f"place: {knob.place}" for knob in self.spec.knobs if knob.name in changed}
        return found | {f"effect: {effect.what}" for effect in self.spec.effects}


def _draw_knob(rng: random.Random, i: int, turn: int | None = None) -> Knob:
    place = rng.choice(ALL_PLACES) if turn is None else ALL_PLACES[turn % len(ALL_PLACES)]
    kind = "float" if place in NUMBERS else rng.choice(["float", "float", "int", "bool", "str"])
    site = rng.choice([*SITES])
    variable = SITES[site][0]
    use = f"{variable} {rng.randrange(len(USES[kind][variable]))}"
    reader = rng.choice([*READERS]) if rng.random() < 0.5 else "inline"
    values = rng.sample(VALUES[kind], 2)
    return Knob(f"k{i}", kind, place, reader, site, use, tuple(values))


def draw(seed: int) -> Sequence:
    """The sequence with this number: the same in every process."""
    rng = random.Random(seed)
    pick = rng.choice
    # Half the sequences have one thing alone, in a plain net, by which a fault is named; all have their turn.
    alone = ["", "change", "", "knob", "", "knob", "", "effect"][seed % 8]
    turn = seed // 8
    if alone == "knob":
        knobs: tuple[Knob, ...] = (_draw_knob(rng, 0, 2 * turn + (seed % 8 == 5)),)
    else:
        knobs = () if alone else tuple(_draw_knob(rng, i) for i in range(pick([0, 1, 1, 2])))
    effects: tuple[Effect, ...] = ()
    if alone == "effect" or (not alone and rng.random() < 0.25):
        what = ALL_EFFECTS[turn % len(ALL_EFFECTS)] if alone else pick(ALL_EFFECTS)
        effects = (Effect("e0", what, pick([site for site, (variable, _) in SITES.items() if variable != "g"])),)
    spec = Spec(
        body="mlp" if alone else pick([*BODIES]),
        loss=pick([*LOSSES]),
        optimizer=pick(OPTIMIZERS),
        schedule=pick(SCHEDULES) if rng.random() < 0.4 else "",
        clip=pick([0.5, 1.0]) if rng.random() < 0.3 else None,
        driver=pick(DRIVERS) if rng.random() < 0.6 else "capture",
        knobs=knobs,
        effects=effects,
    )
    calls = rng.randint(7, 11)
    rows = pick([3, 4, 6])
    short = rng.random() < 0.25
    batches = tuple((2 if short and rng.random() < 0.3 else rows, rng.randrange(4)) for _ in range(calls))
    changes: list[Change] = []
    for _ in range(0 if alone == "effect" else 1 if alone else rng.randint(1, 4)):
        call = rng.randint(1, calls - 2) if rng.random() < 0.3 else rng.randint(3, calls - 2)
        if knobs and (alone or rng.random() < 0.5):
            which = rng.randrange(len(knobs))
            changes.append(Change(call, "knob", which + KNOBS))
            if rng.random() < 0.4:  # and back
                changes.append(Change(rng.randint(call + 1, calls - 1), "knob", which + 2 * KNOBS))
        else:
            kind = ALL_CHANGES[turn % len(ALL_CHANGES)] if alone else pick(ALL_CHANGES)
            changes.append(Change(call, kind, rng.randrange(10**9)))
    changes.sort(key=lambda change: change.call)
    return Sequence(seed, spec, batches, tuple(changes))
