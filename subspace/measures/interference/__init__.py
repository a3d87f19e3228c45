"""What a merge would do: cosines, shared directions and sums of updates.

`measure` is the entry; `modules` compares updates of one module, `inner_products` has their
cosines, `merged` their sum.
Start reading with `measure`.
"""
