"""``python -m nameonly``."""

from nameonly.cli import program

program()
