"""What several test files share, one idea a file; no test file imports another.

Start reading with `verbs` (a verb run, what it refused), `samples` (the sample adapters' paths)
and `folders` (adapters and bases on disk). `memory` has updates and adapters in memory, `results`
has results for the figures, `axes` reads figures, `documents` holds JSON to the schema.
"""
