"""The scenario: the only configuration there is, and how it is read and explained."""
