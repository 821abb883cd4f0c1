"""A run from its scenario to its report: stages, tasks, executors and the run's folder."""
