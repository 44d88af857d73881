"""Tools over any session: pages, bulk writes, explained statements.  One module a tool; nothing is defined here."""
