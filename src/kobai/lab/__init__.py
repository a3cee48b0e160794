"""The lab: why a network trains or does not, and what cures it.

``Probe`` gathers statistics of every layer, ``diagnose`` names what is wrong with a net, ``treat`` cures it, and ``Doctor``
watches a training; ``compare`` runs conditions side by side, ``tune`` searches settings; ``run`` performs the thirteen
``EXPERIMENTS``, and ``report`` writes a page about a run. Each part is imported when it is first used.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

from kobai.errors import nearest as _nearest

# The module of each name. No module is named like what it provides: importing it would shadow that.
_PLACES = {
    "Probe": "probe.probes",
    "diagnose": "doctor.diagnosis",
    "treat": "doctor.treatment",
    "Doctor": "doctor.callback",
    "compare": "sweep.compare",
    "tune": "sweep.tune",
    "EXPERIMENTS": "experiments.register",
    "Experiment": "experiments.base",
    "Result": "experiments.base",
    "Settings": "experiments.base",
    "run": "experiments.register",
    "report": "reports.reporting",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> _Any:
    if name not in _PLACES:
        hint = "" if name.startswith("_") else _nearest(name, _PLACES)
        raise AttributeError(f"module 'kobai.lab' has no attribute {name!r}.{hint}")
    value = getattr(_import_module(f"kobai.lab.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
