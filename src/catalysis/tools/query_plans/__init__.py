"""What a database says of how it runs a statement: read, drawn, and looked through for faults.

`tree` is what all others work on; `reading` makes it of EXPLAIN's answer, `text`, `terminal` and `boxes` show it, and
`findings` finds what is wrong with it.  Only `examining` asks a database.  The engine's own plans are in `engine.plan`.
"""
