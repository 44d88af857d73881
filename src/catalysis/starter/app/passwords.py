"""Hashing and checking passwords with Argon2.

A hash takes some 50 ms of one core on purpose, so it is made in a thread: the event loop goes on meanwhile.
"""

import asyncio

from pwdlib import PasswordHash

_argon2 = PasswordHash.recommended()


async def hash_password(password: str) -> str:
    """Its salted Argon2 hash."""
    return await asyncio.to_thread(_argon2.hash, password)


async def password_matches(password: str, password_hash: str | None) -> bool:
    """Whether the password has this hash; with None (there is no such user) it takes as long to say no."""
    if password_hash is None:
        await hash_password(password)
        return False
    return await asyncio.to_thread(_argon2.verify, password, password_hash)
