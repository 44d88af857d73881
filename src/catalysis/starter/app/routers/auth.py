"""Logging in, and one's own account."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import OAuth2PasswordRequestForm

from catalysis import DatabaseDep
from catalysis.starter.app.dependencies import CurrentUser, SettingsDep
from catalysis.starter.app.dtos.auth import ChangePasswordDTO, TokenDTO, UpdateMeDTO
from catalysis.starter.app.dtos.users import UserDetailsDTO
from catalysis.starter.app.models import User
from catalysis.starter.app.services import users
from catalysis.starter.app.settings import AppSettings
from catalysis.starter.app.tokens import sign_token

router = APIRouter(prefix="/auth", tags=["auth"])


def _token(user: User, settings: AppSettings) -> TokenDTO:
    return TokenDTO(access_token=sign_token(user, settings), expires_in=settings.token_minutes * 60)


@router.post("/token", summary="Log in")
async def log_in(
    db: DatabaseDep, settings: SettingsDep, form: Annotated[OAuth2PasswordRequestForm, Depends()]
) -> TokenDTO:
    """Exchange a username and a password for an access token."""
    user = await users.authenticate(db, form.username, form.password)
    if user is None:
        raise HTTPException(401, "Wrong username or password.", {"WWW-Authenticate": "Bearer"})
    return _token(user, settings)


@router.get("/me", summary="See one's own account")
async def get_me(me: CurrentUser) -> UserDetailsDTO:
    """The account behind the token, with what its role permits."""
    return UserDetailsDTO.model_validate(me)


@router.patch("/me", summary="Change one's own account")
async def update_me(db: DatabaseDep, me: CurrentUser, changes: UpdateMeDTO) -> UserDetailsDTO:
    """Name and address; username and role are changed by those who look after users."""
    return UserDetailsDTO.model_validate(await users.update_me(db, me, changes))


@router.put("/me/password", summary="Change one's own password")
async def change_password(
    db: DatabaseDep, settings: SettingsDep, me: CurrentUser, change: ChangePasswordDTO
) -> TokenDTO:
    """Log out everywhere and get a token for the new password."""
    current = change.current_password.get_secret_value()
    return _token(await users.change_password(db, me, current, change.new_password), settings)
