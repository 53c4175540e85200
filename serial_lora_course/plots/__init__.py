"""Figures and panels that several lessons share; those of one lesson stand in its folder."""
