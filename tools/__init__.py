"""For whoever works on the course; needs a checkout."""
