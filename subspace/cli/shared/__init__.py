"""What verbs share: options, reading, output, hints.

`options` has the options, `reading` opens adapters, `printing` writes results.
Start reading with `options`.
"""
