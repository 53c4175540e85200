"""Your own model and pictures: the checks, figures, tables and panel of this lesson alone."""
