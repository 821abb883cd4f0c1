"""From an event log or a per-user table to lifts one can trust."""
