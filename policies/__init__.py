"""Recall policies: the contract, and the policies that keep it. Imports nothing of recgpt or simulator."""
