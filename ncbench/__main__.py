"""``python -m ncbench``."""

from ncbench.cli import main

main()
