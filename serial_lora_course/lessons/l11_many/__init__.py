"""Many adapters on one base: the checks, figures, tables and panel of this lesson alone."""
