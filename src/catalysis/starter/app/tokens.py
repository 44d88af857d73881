"""Access tokens: who somebody is, signed, for a limited time.  What they may do is looked up at each request."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt

from catalysis.starter.app.models import User
from catalysis.starter.app.settings import AppSettings

ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a token says of whoever bears it."""

    user_id: UUID
    generation: int


def sign_token(user: User, settings: AppSettings) -> str:
    """A token for the user, good for `settings.token_minutes`."""
    now = datetime.now(UTC)
    claims = {
        "sub": str(user.id),
        "gen": user.token_generation,
        "iat": now,
        "exp": now + timedelta(minutes=settings.token_minutes),
    }
    return jwt.encode(claims, settings.signing_key, ALGORITHM)  # pyright: ignore[reportUnknownMemberType] - half typed


def read_token(token: str, settings: AppSettings) -> Bearer | None:
    """What the token says; None if it is forged, malformed or expired."""
    try:
        claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType] - half typed
            token, settings.signing_key, [ALGORITHM], options={"require": ["sub", "gen", "exp"]}
        )
        return Bearer(UUID(claims["sub"]), int(claims["gen"]))
    except (jwt.InvalidTokenError, ValueError):
        return None
