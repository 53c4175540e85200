"""Inside an adapter: the checks, figures, tables and panel of this lesson alone."""
