"""What routes ask for: who is calling, and whether they may."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer

from catalysis import DatabaseDep
from catalysis.starter.app.models import User
from catalysis.starter.app.permissions import PermissionName
from catalysis.starter.app.services.users import find_caller
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import read_token

_token = OAuth2PasswordBearer(tokenUrl="auth/token")


def settings_of(request: Request) -> AppSettings:
    """The settings of the application that answers."""
    return request.app.state.settings


SettingsDep = Annotated[AppSettings, Depends(settings_of)]


async def current_user(
    db: DatabaseDep, settings: SettingsDep, token: Annotated[str, Depends(_token)]
) -> User:
    """Whoever bears the token, with role and permissions as they are now.

    Raises:
        HTTPException: 401; the token is bad, or the user is gone, switched off or logged out.
    """
    bearer = read_token(token, settings)
    user = bearer and await find_caller(db, bearer.user_id)
    if not bearer or not user or not user.is_active or user.token_generation != bearer.generation:
        raise HTTPException(401, "Log in again.", {"WWW-Authenticate": "Bearer"})
    return user


CurrentUser = Annotated[User, Depends(current_user)]


def require_permission(name: PermissionName) -> Callable[[User], Awaitable[User]]:
    """A dependency: the current user, who has the permission; anybody else is told 403."""

    async def check(user: CurrentUser) -> User:
        if not user.may(name):
            raise HTTPException(403, f"This needs the permission {name}.")
        return user

    return check
