"""RecGPT (arXiv 2404.08675): a policy like any other. Imports only policies."""
