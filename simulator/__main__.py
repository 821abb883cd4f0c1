"""`python -m simulator` is `abtest`."""

import os
import sys

if sys.path[0] in (
    "",
    os.getcwd(),
):  # `python -m` puts it first, where a plug-in called numpy.py would stand before numpy
    sys.path.append(sys.path.pop(0))

from simulator.cli import main

main()
