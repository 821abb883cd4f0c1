"""Designs of A/B tests: who gets which arm, and all that follows from it."""
