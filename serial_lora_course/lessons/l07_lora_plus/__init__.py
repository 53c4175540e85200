"""LoRA+: whose rate?: the checks, figures, tables and panel of this lesson alone."""
