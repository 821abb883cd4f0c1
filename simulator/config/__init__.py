"""What every section of a scenario stands on: its base class, and the YAML document that it is
read from, which knows the line of every key.
"""
