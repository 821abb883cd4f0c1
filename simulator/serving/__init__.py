"""The one path from a request to a slate: recall, channels, ranking, cut."""
