"""Build Serial LoRA: the checks, figures, tables and panel of this lesson alone."""
