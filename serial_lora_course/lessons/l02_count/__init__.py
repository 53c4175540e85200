"""The count, proved: the checks, figures, tables and panel of this lesson alone."""
