"""`python -m bench.soak --minutes 10`: an application under clients that leave, and what it must never show.

A uvicorn process of its own and PostgreSQL; routes that read, write, stream, wait and are cancelled; clients that drop
their sockets at any time; bursts that ask for more than the pool has.  The exit code is not 0 when something leaked.
"""
