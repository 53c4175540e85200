"""The paper on trial: the checks, figures, tables and panel of this lesson alone."""
