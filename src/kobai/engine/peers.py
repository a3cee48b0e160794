"""The processes with which numbers are exchanged on GPUs, as far as a captured step has to know of them.

``kobai.distributed`` puts them here when it joins them, so that a step need not import it.
"""

from __future__ import annotations

from typing import Any

from kobai.errors import CaptureError

joined: Any = None
"""The :class:`~kobai.distributed.world.World` of several processes whose exchanges are queued on GPUs: then all must replay a
captured step, or none."""


class Refused(CaptureError):
    """Another process cannot capture the step that all are recording."""
