"""`python -m simulator` is `abtest`."""

from simulator.cli import main

main()
