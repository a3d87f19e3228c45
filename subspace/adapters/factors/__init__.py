"""Methods that are not a plain pair, turned into exact factors B and A.

`hadamard` is LoHa, `kronecker` LoKr, `kernels` convolutions, `magnitude` DoRA's vector.
Start reading with `plain`.
"""
