"""Offline replay: the value of a policy on a log that another policy wrote."""
