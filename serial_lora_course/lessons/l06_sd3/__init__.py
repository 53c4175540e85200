"""Stable Diffusion 3: the checks, figures, tables and panel of this lesson alone."""
