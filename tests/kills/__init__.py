"""What no death, disk, clock or plug-in may do to a run. `python -m tests.kills --help`.

A case is a pure function of its seed, up to the moment in which a signal arrives. Whatever is done
to a run, it ends with one message and a code that is documented, and `--resume` ends in the bytes
of an undisturbed run, or names what is lost.
"""
