"""What no input may do: every kind of input, mutated from small valid ones by a seed.
`python -m tests.fuzz --help`.

A case is a pure function of its seed. It ends refused, with one message, or right: never with a
traceback, with a warning of a library, or with another answer to the same content.
"""
