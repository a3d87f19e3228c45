"""Where an update lies in W: Figure 8, and its energy over all of W's directions.

`measure` is Figure 8, `profile` the energy over the whole index; `energies` sums it up.
Start reading with `measure`.
"""
