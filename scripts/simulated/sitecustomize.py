"""With this folder and ``tests/`` on PYTHONPATH, any Python process has the simulated device if KOBAI_SIMULATE_GPU=1.

``tests/conftest.py`` does the same for pytest; this is for the other programs that ``gpu_check.py --simulate`` starts.
"""

import os
import sys

# NVIDIA's pathfinder looks for libraries in a process of its own, which has ten seconds and needs no device.
looks_for_libraries = any(part.startswith("cuda.pathfinder") for part in sys.orig_argv)

if os.environ.get("KOBAI_SIMULATE_GPU") == "1" and not looks_for_libraries:
    import simulator

    simulator.install()
