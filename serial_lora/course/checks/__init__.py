"""The checks of each lesson's exercises, one module a lesson, loaded when first asked for."""
