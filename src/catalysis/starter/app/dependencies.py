"""What routes ask for: who is calling, and whether they may."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

from fastapi import Depends, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.exc import NoResultFound

from catalysis import DatabaseDep, Session
from catalysis.starter.app.errors import NotPermitted
from catalysis.starter.app.models import User
from catalysis.starter.app.permissions import PermissionName
from catalysis.starter.app.services.users import find_caller, get_user
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
    """A dependency: the current user, who has the permission.

    Raises:
        NotPermitted: from the dependency; the user has not.
    """

    async def check(user: CurrentUser) -> User:
        if not user.may(name):
            raise NotPermitted(name)
        return user

    return check


def somebody(permission: PermissionName) -> Callable[[Session, User, UUID], Awaitable[User]]:
    """A dependency: the user whom `user_id` in the path names, who is the caller unless the caller has the permission.

    Raises:
        NoResultFound: from the dependency; there is no such user, or not for the caller.
    """

    async def find(db: DatabaseDep, caller: CurrentUser, user_id: UUID) -> User:
        if user_id == caller.id:
            return caller
        if not caller.may(permission):
            raise NoResultFound("no such user")
        return await get_user(db, user_id)

    return find
