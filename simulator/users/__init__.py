"""Who answers a slate: choice (synthetic), learned, logged and held-out users."""
