"""For whoever works on the course: building notebooks, documents and the bundle, running all tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: the tools lie in it, and in no wheel."""
