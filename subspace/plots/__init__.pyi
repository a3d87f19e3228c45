"""The figures, each with the file that it comes from; `__init__.py` reads them here."""

from .accuracy.figure import accuracy_figure as accuracy_figure
from .amplification_curve import curve_figure as curve_figure
from .amplification_map import amplification_map as amplification_map
from .amplification_map import map_figure as map_figure
from .figure3 import figure3 as figure3
from .figure4 import figure4 as figure4
from .gains import gains as gains
from .gains import gains_figure as gains_figure
from .heatmap import phi_heatmap as phi_heatmap
from .interference_map import interference_figure as interference_figure
from .interference_map import interference_map as interference_map
from .layers import layers_figure as layers_figure
from .matrix import matrix_figure as matrix_figure
from .matrix import matrix_map as matrix_map
from .profile import profile_curve as profile_curve
from .profile import profile_figure as profile_figure
from .rank import rank_figure as rank_figure
from .save import save as save
