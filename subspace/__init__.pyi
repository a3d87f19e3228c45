"""The public names, each with the file that it comes from; `__init__.py` reads them here."""

from . import findings as findings
from . import plots as plots
from .adapters import Adapter as Adapter
from .adapters import LowRankUpdate as LowRankUpdate
from .adapters import align as align
from .adapters import load as load
from .adapters.save import save as save
from .errors import SubspaceError as SubspaceError
from .measures.amplification.measure import amplification as amplification
from .measures.amplification.measure import amplifications as amplifications
from .measures.diff.measure import diff as diff
from .measures.interference.measure import interference as interference
from .measures.placement.measure import placement as placement
from .measures.placement.profile import profile as profile
from .measures.rank.measure import rank as rank
from .measures.resize.measure import resize as resize
from .measures.similarity.matrix import similarities as similarities
from .measures.similarity.measure import similarity as similarity
from .reports import report as report
from .results import Similarity as Similarity
from .spectra import Spectrum as Spectrum
from .spectra import spectrum as spectrum

__version__: str
