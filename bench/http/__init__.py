"""`python -m bench.http`: requests per second of one FastAPI application, written three times.

By hand on asyncpg, on stock SQLModel, and on Catalysis: the same paths, answers, statements and pool of ten
connections, each in a uvicorn process of its own.  Nothing here is imported by the package.
"""
