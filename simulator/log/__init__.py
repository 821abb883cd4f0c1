"""The event log: its rows, its rules, its files, and the metrics read from it."""
