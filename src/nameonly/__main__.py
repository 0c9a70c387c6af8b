"""``python -m nameonly``."""

from nameonly.cli import main

main()
