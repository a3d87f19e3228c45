"""What a merge would do: cosines, shared directions and sums of updates.

`measure` is the entry; `modules` compares one module, `merged` sums updates.
Start reading with `measure`.
"""
