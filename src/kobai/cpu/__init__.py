"""Work shared among this process' processors: the pool of threads, and matrix products on it.

``threads`` is the pool, whose members sleep between loops; ``team`` those of them who are awake, and ``job`` what they share;
``product`` is a matrix product as a job, over ``tiles`` (the innermost loops). ``blas`` holds the threads of NumPy's BLAS back,
``thread_report`` says which other pools of threads there are.
"""
