"""Synthetic users who choose: the `choice` population of a scenario, and the yardsticks that may
read its truth.
"""

from simulator.users.choice.population import Choice
from simulator.users.choice.yardsticks import Oracle, Production

__all__ = ["Choice", "Oracle", "Production"]
