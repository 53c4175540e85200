"""CLIP with a few shots: the checks, figures, tables and panel of this lesson alone."""
