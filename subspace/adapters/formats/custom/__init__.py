"""A format of one's own: templates of tensor names, given as text or TOML.

`fields` parses the pattern, `template` matches names in bounded time, `read` makes updates.
Start reading with `read`.
"""
