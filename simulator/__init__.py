"""The world, the replay, the measurement and the command line. Imports the policies' contract, never a model."""
