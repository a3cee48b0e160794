"""The second fresh half of the exam: collected as the first was, by somebody who knew neither the doctor's rules nor its words.

FROZEN: no threshold, no rule and no wording of the doctor may be set by what is found here, and no situation changed
to suit it. Its first figure is what nets that the doctor has never met would show.
"""

from importlib import import_module

for _module in "who losses losses_broken samples course data nets nets_training".split():
    import_module(f"exam.fresh2.{_module}")
