"""The third fresh half of the exam: collected as the two before it, by somebody who knew neither the doctor's rules nor
its words. More than half of its nets are no plain stacks of dense layers.

FROZEN: no threshold, no rule and no wording of the doctor may be set by what is found here, and no situation changed
to suit it. Its first figure is what nets that the doctor has never met would show.
"""

from importlib import import_module

for _module in "who losses losses_learning samples course signal data nets nets_training".split():
    import_module(f"exam.fresh3.{_module}")
