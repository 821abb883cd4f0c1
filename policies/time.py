"""The clock of a log: milliseconds from the start of the A/B (the column `t`), in days of equal
length.
"""

HOUR = 3_600_000
"""ms."""

DAY = 24 * HOUR
"""ms."""
