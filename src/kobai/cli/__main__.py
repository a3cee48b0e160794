"""``python -m kobai.cli``, where the ``kobai`` command is not on the path."""

from kobai.cli import main

main()
