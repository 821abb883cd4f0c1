"""Off-policy estimators of one policy's value per request; interface."""
