"""Figures: axes-level functions take and return an Axes, figure-level ones return a Figure."""
