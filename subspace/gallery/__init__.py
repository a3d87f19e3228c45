"""What `reproduce` writes: figures, tables and the page that retells section 7.

`sweeps` trains the runs and `runs` chooses which are compared; `measure` has the numbers, `figures`
the figures, `page` README.md. Start reading with `write`.
"""
