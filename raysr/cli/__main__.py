"""``python -m raysr.cli``: the command ``raysr`` where its script is not installed."""

from raysr.cli import main

main()
