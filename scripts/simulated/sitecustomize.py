"""With this folder and ``tests/`` on PYTHONPATH, any Python process has the simulated device if KOBAI_SIMULATE_GPU=1.

``tests/conftest.py`` does the same for pytest; this is for the other programs that ``gpu_check.py --simulate`` starts.
"""

import os

if os.environ.get("KOBAI_SIMULATE_GPU") == "1":
    import simulator

    simulator.install()
