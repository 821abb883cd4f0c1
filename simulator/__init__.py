"""The world, the replay, the measurement and the command line. Imports the policies' contract,
never a model.
"""

import policies  # noqa: F401 (chooses where compiled kernels are kept, before numba is imported)
