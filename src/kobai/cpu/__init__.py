"""Work shared among this process' processors: the pool of threads, and matrix products on it.

``threads`` is the pool, ``team`` its members who stay awake; ``blas`` is the door to products, which it gives to BLAS or to
``product`` (blocking) over ``tiles`` (the innermost loops). ``thread_report`` says which other pools of threads there are.
"""
