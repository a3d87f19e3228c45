"""What a model's modules are called: one table of words, and the rules that compare names.

`words` is the table; `wrappers`, `underscored`, `fused` match names; `place` takes a path apart,
`order` sorts paths; `flux`, `sd3`, `sdxl` are one model's own names against diffusers'.
Start reading with `words`.
"""
