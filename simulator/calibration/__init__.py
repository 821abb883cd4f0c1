"""A world held to published marginals: targets, measurements, and the search that meets them."""
