"""The programs are run by ../test_programs.py; pytest must not import them, since they import another framework."""

collect_ignore_glob = ["*.py"]
