"""The discrete-event engine: users' lives against the desk, and the tape that keeps what they
did.
"""
