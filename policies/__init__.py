"""Recall policies: the contract, and the policies that keep it. Imports nothing of recgpt or simulator."""

import os

os.environ.setdefault("MKL_CBWR", "AUTO")  # MKL is torch's products: see `policies.blocks`; it must be told before the first one
