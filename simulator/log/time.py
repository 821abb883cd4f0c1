"""The clock of an event log: milliseconds from the start of the A/B, in days of equal length."""

DAY = 86_400_000
"""ms."""
