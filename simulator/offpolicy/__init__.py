"""Offline replay: the value of a policy on a log that another policy wrote."""

from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.target import Target, Targets

__all__ = ["Rounds", "Stream", "Target", "Targets"]
