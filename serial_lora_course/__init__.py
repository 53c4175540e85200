"""The course around the library: labs, models, data, figures, panels, claims and checks."""
