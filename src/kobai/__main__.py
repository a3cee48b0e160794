"""``python -m kobai``, where the ``kobai`` command is not on the path."""

from kobai.cli import main

main()
