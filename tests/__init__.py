"""Tests; what several files of them share is in `tests.support`."""
