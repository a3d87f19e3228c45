"""The base checkpoint as a lazy mapping from module name to W, in the orientation of the map.

>>> from subspace.pretrained import open_pretrained
>>> base = open_pretrained("path/to/model")  # doctest: +SKIP
>>> base["model.layers.3.self_attn.q_proj"].W.shape  # doctest: +SKIP
torch.Size([4096, 4096])

Start reading with `checkpoint`.
"""

from subspace.pretrained.checkpoint import Pretrained, open_pretrained
from subspace.pretrained.weight import Weight

__all__ = ["Pretrained", "Weight", "open_pretrained"]
