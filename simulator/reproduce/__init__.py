"""The paper's offline experiments as scenarios with held-out users: what was published, what is
run, what came out.
"""
