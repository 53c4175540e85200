"""It does not learn: the posted runs, the checks and the figures of this lesson alone."""
