"""The shipped scenarios, as package data."""
