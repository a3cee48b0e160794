"""Sequences of training steps, captured and eager, that must agree in everything: see :mod:`step_sequences`.

``check(seed)`` draws the sequence with that number, runs it twice from the same seeds, and describes the first difference –
in losses, parameters, buffers, gradients, the optimizer's state, what the step's Python did, or the state of the random
streams – as a program that can be run by hand, with as few changes and as plain as it can be made.
"""

from __future__ import annotations

import array
import collections
import contextlib
import contextvars
import copy
import dataclasses
import decimal
import enum
import fractions
import functools
import io
import itertools
import logging
import operator
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.optim import lr_scheduler
from kobai.train import Callback, Trainer
from step_effects import EFFECTS
from step_programs import Spec, text_of
from step_sequences import Change, Sequence, draw

NAMES = {
    module.__name__: module
    for module in (
        array,
        collections,
        contextlib,
        contextvars,
        copy,
        dataclasses,
        decimal,
        enum,
        fractions,
        functools,
        io,
        itertools,
        logging,
        operator,
        os,
        random,
        sys,
        threading,
        time,
        types,
        warnings,
        weakref,
    )
}
NAMES |= {"np": np, "kobai": kobai, "nn": nn, "F": F, "lr_scheduler": lr_scheduler, "Trainer": Trainer}
"""What the programs may name."""

Record = dict[str, Any]
"""What was seen after a call, by name."""


def _batches() -> dict[tuple[int, int], tuple[kobai.Tensor, kobai.Tensor]]:
    rng = np.random.default_rng(0)
    return {
        (rows, i): (
            kobai.tensor(rng.standard_normal((rows, 6)).astype("f")),
            kobai.tensor(rng.integers(0, 3, rows)),
        )
        for rows in (2, 3, 4, 6)
        for i in range(4)
    }


BATCHES = _batches()


class Run:
    """One run of a sequence: what was seen after every call, and how many of the calls were replays."""

    def __init__(self, sequence: Sequence, captured: bool, verify: int = 0) -> None:
        self.sequence = sequence
        self.captured = captured
        self.verify = verify
        self.records: list[Record] = []
        self.replays = 0
        self.last_replayed = False
        self.raised: str | None = None
        with _as_it_was() as folder:
            self.names: dict[str, Any] = {
                **NAMES, "__name__": "fuzzed", "__builtins__": __builtins__, "CAPTURED": captured,
                "VERIFY": verify, "wrap": self._wrap,
                "watcher": _Watcher(self), "handles": [], "kept": {}, "held": [], "ticks": [], "folder": folder,
            }  # fmt: skip
            self._do(text_of(sequence.spec))
            effects = sequence.spec.effects
            self.looks = [(e.what, compile(EFFECTS[e.what][2].replace("@", e.name), "<look>", "eval")) for e in effects]
            trainer = self.names.get("trainer")
            if trainer is not None and captured:
                self._count(trainer._captured)
            if sequence.spec.driver == "fit":
                self._fit(trainer)
            else:
                self._calls()

    def _do(self, text: str) -> None:
        exec(compile(text, f"<sequence {self.sequence.seed}>", "exec"), self.names)

    def _wrap(self, step: Any) -> Any:
        return self._count(kobai.capture(step, fallback=True, verify=self.verify)) if self.captured else step

    def _count(self, captured: Any) -> Any:
        run = captured.run

        def counted(*args: Any) -> Any:
            result, lasting = run(*args)
            self.replays += not lasting
            self.last_replayed = not lasting
            return result, lasting

        captured.run = counted
        return captured

    # --- calls

    def change(self, i: int) -> None:
        """Do what changes before call ``i``."""
        for change in self.sequence.changes:
            if change.call == i:
                try:
                    self._do(self.sequence.text_of(change))
                except Exception as error:
                    self.raised = f"change: {type(error).__name__}"

    def _calls(self) -> None:
        for i, which in enumerate(self.sequence.batches):
            self.change(i)
            try:
                result: Any = self.names["call"](*BATCHES[which])
            except Exception as error:
                self.note(type(error).__name__)
            else:
                self.note(result)

    def _fit(self, trainer: Trainer) -> None:
        data = [BATCHES[which] for which in self.sequence.batches]
        try:
            trainer.fit(data[:4], epochs=1)
            trainer.fit(data[4:], epochs=2)
        except Exception as error:
            self.note(type(error).__name__)
        self.note({k: v for k, v in trainer.history[-1].items() if k != "time"} if trainer.history else None)

    # --- what is seen

    def note(self, result: Any) -> None:
        """Keep everything that can be seen now."""
        names = self.names
        seen: Record = {"result": _bits(result)}
        for owner in ("model", "criterion"):
            module = names[owner]
            if isinstance(module, nn.Module):
                for name, p in module.named_parameters():
                    seen[f"{owner}.{name}"] = _bits(p)
                    seen[f"{owner}.{name}.grad"] = _bits(p.grad)
                for name, buffer in module.named_buffers():
                    seen[f"{owner}.{name}"] = _bits(buffer)
                seen[f"modes of {owner}"] = [m.training for m in module.modules()]
        optimizer = names["optimizer"]
        for i, group in enumerate(optimizer.param_groups):
            for j, p in enumerate(group["params"]):
                who = f"group {i} parameter {j}"
                seen[who], seen[f"{who}'s grad"] = _bits(p), _bits(p.grad)
                for name, value in optimizer.state.get(p, {}).items():
                    seen[f"{who}'s {name}"] = _bits(value)
            seen[f"group {i}"] = {k: v for k, v in group.items() if k != "params"}
        if names["schedule"] is not None:
            seen["schedule"] = (names["schedule"].last_epoch, names["schedule"].get_last_lr())
        for i, tensor in enumerate(names["held"]):
            seen[f"held {i}"] = _bits(tensor)
        for what, look in self.looks:
            try:
                found = eval(look, names)
            except Exception as error:
                found = type(error).__name__
            seen[f"what {what!r} did"] = copy.deepcopy(found)
        state = kobai.get_rng_state()
        seen["kobai's random state"] = (state["seed"], state["counter"], state["numpy"]["state"]["state"])
        seen["random's state"] = hash(random.getstate())
        seen["numpy.random's state"] = (lambda s: (s[1].tobytes(), s[2:]))(np.random.get_state())
        seen["raised"] = self.raised
        self.records.append(seen)


class _Watcher(Callback):
    """Makes the changes of a sequence while a Trainer fits, and looks after each batch."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.done = 0

    def on_epoch_start(self, trainer: Trainer) -> None:
        self.run.change(self.done)

    def on_batch_end(self, trainer: Trainer) -> None:
        self.done += 1
        self.run.note(None)
        if self.done not in (4, len(self.run.sequence.batches)):  # after these comes on_epoch_start
            self.run.change(self.done)


def _bits(value: Any) -> Any:
    if isinstance(value, kobai.Tensor):
        array = np.asarray(value.array)
        return array.dtype.str, array.shape, array.tobytes()
    return value


_FOLDER: list[str] = []


@contextlib.contextmanager
def _as_it_was() -> Iterator[str]:
    """A run from fixed seeds, in a folder of its own, that leaves the process as it was."""
    folder = f"{_scratch()}/run"
    os.mkdir(folder)
    out, environment, modules = sys.stdout, dict(os.environ), set(sys.modules)
    level = logging.getLogger("kobai").level
    logging.getLogger("kobai").setLevel(logging.CRITICAL)
    sys.stdout = io.StringIO()
    kobai.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield folder
    finally:
        sys.stdout = out
        logging.getLogger("kobai").setLevel(level)
        kobai.set_default_dtype(kobai.float32)
        kobai.autograd.set_detect_anomaly(False)
        os.environ.pop("KOBAI_FUZZ", None)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        for name in [name for name in sys.modules if name not in modules and name.startswith("fuzz_")]:
            del sys.modules[name]
        for name in os.listdir(folder):
            os.remove(f"{folder}/{name}")
        os.rmdir(folder)


def _scratch() -> str:
    """A folder of this process, removed at its end."""
    if not _FOLDER or not _FOLDER[0].endswith(f"-{os.getpid()}"):
        _FOLDER[:] = [tempfile.mkdtemp(prefix="kobai-fuzz-", suffix=f"-{os.getpid()}")]
        import atexit

        atexit.register(shutil.rmtree, _FOLDER[0], ignore_errors=True)
    return _FOLDER[0]


# --- comparing --------------------------------------------------------------------------------------------------------


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (a != a and b != b) or repr(a) == repr(b)


def compare(eager: Run, captured: Run) -> str | None:
    """The first difference of two runs, in words."""
    for i, (before, after) in enumerate(itertools.zip_longest(eager.records, captured.records, fillvalue={})):
        for name in [*before, *(name for name in after if name not in before)]:
            if not _same(before.get(name), after.get(name)):
                return f"call {i}: {name}: eager {_shown(before.get(name))}, captured {_shown(after.get(name))}"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], bytes):
        return str(np.frombuffer(value[2], value[0]).reshape(value[1]).ravel()[:4].tolist())
    return repr(value)[:200]


def difference(sequence: Sequence) -> str | None:
    """How the captured run of a sequence differs from the eager one, or None."""
    return compare(Run(sequence, False), Run(sequence, True))


def minimised(sequence: Sequence) -> Sequence:
    """A sequence as plain as can be that still differs."""
    best = sequence
    progress = True
    while progress:
        progress = False
        for simpler in _simpler(best):
            if difference(simpler) is not None:
                best, progress = simpler, True
                break
    return best


def _simpler(sequence: Sequence) -> Iterator[Sequence]:
    spec, plain = sequence.spec, Spec()
    for i in range(len(sequence.changes)):
        yield replace(sequence, changes=sequence.changes[:i] + sequence.changes[i + 1 :])
    for name in ("knobs", "effects"):
        parts = getattr(spec, name)
        for i in range(len(parts)):
            yield replace(sequence, spec=replace(spec, **{name: parts[:i] + parts[i + 1 :]}))
    for field in ("driver", "body", "schedule", "clip", "loss", "optimizer"):
        if getattr(spec, field) != getattr(plain, field):
            yield replace(sequence, spec=replace(spec, **{field: getattr(plain, field)}))
    for i, knob in enumerate(spec.knobs):
        if knob.reader != "inline":
            knobs = (*spec.knobs[:i], replace(knob, reader="inline"), *spec.knobs[i + 1 :])
            yield replace(sequence, spec=replace(spec, knobs=knobs))
    if len(set(sequence.batches)) > 1:
        yield replace(sequence, batches=tuple(sequence.batches[:1] * len(sequence.batches)))
    last = max((change.call for change in sequence.changes), default=2)
    if len(sequence.batches) > last + 1:
        yield replace(sequence, batches=sequence.batches[:-1])
    for i, change in enumerate(sequence.changes):
        if change.call > 3:
            earlier = Change(change.call - 1, change.kind, change.seed)
            yield replace(sequence, changes=(*sequence.changes[:i], earlier, *sequence.changes[i + 1 :]))


def described(sequence: Sequence, found: str) -> str:
    """A sequence that differs, as something to read and to run."""
    lines = [f"sequence {sequence.seed}: {found}", "the program:", text_of(sequence.spec).strip(), "the changes:"]
    lines += [f"before call {c.call} ({c.kind}): {sequence.text_of(c)}" for c in sequence.changes]
    lines += [f"effect in the step: {e.what} (in {e.site})" for e in sequence.spec.effects]
    lines += [f"calls: {len(sequence.batches)}, rows {[rows for rows, _ in sequence.batches]}"]
    return "\n".join(lines)


def check(seed: int) -> str | None:
    """None where the sequence with this number agrees; else the plainest form of it that differs."""
    sequence = draw(seed)
    if difference(sequence) is None:
        return None
    smallest = minimised(sequence)
    again = difference(smallest)
    return described(smallest, again or "differs in some runs only")


@dataclasses.dataclass
class Found:
    """What many sequences came to."""

    faults: list[str] = dataclasses.field(default_factory=list)
    seeds: list[int] = dataclasses.field(default_factory=list)
    calls: int = 0
    replays: int = 0
    kinds: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    """By what alone happened in a sequence: sequences, those that differ, those with a replay at their end."""


def many(seeds: Iterable[int], most: int = 3) -> Found:
    """Run these sequences; the first ``most`` that differ are made small and described."""
    found = Found()
    for seed in seeds:
        sequence = draw(seed)
        eager, captured = Run(sequence, False), Run(sequence, True)
        differs = compare(eager, captured) is not None
        found.calls += len(sequence.batches)
        found.replays += captured.replays
        if len(sequence.kinds) == 1:
            counts = found.kinds.setdefault(next(iter(sequence.kinds)), [0, 0, 0])
            counts[0] += 1
            counts[1] += differs
            counts[2] += captured.last_replayed
        if differs:
            found.seeds.append(seed)
            if len(found.faults) < most:
                found.faults.append(check(seed) or f"sequence {seed} differed once and not again")
    return found
