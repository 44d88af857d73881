"""Catalysis in other frameworks; each module needs its own extra and is imported only when asked for."""
