"""Colours that several figures share."""

# Both maps keep their order in grey and for the common colour deficiencies.
PHI_MAP = "viridis"
DIFFERENCE_MAP = "RdBu_r"
# Blue, orange and an outline: apart for every colour deficiency, and in grey.
W_COLOUR, DELTA_COLOUR, SUM_COLOUR = "#0072b2", "#e69f00", "#ffffff"
