"""What `reproduce` writes: figures, tables and the page that retells section 7.

`write` draws the figures, `page` writes README.md, `runs` chooses what is compared.
Start reading with `write`.
"""
