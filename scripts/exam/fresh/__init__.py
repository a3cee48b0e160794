"""The fresh half of the exam: collected by somebody who knew neither the doctor's rules nor its wording.

FROZEN: no threshold, no rule and no wording of the doctor may be set by what is found here, and no situation changed
to suit it. Its first figure is what nets that the doctor has never met would show; it stands in ``docs/lab/exam_fresh.md``.
"""

from importlib import import_module

for _module in "who losses course data nets nets_losses nets_training".split():
    import_module(f"exam.fresh.{_module}")
