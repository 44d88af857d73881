"""Logging in, and what users may change about themselves."""

from typing import Literal

from pydantic import SecretStr

from catalysis import DTO
from catalysis.starter.app.dtos.fields import Email, Password, ShortText, left_out


class TokenDTO(DTO):
    """An access token; send it as `Authorization: Bearer …`.  `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the kind of token, not one
    expires_in: int


class UpdateMeDTO(DTO):
    """What is left out stays as it is."""

    email: Email = left_out()
    full_name: ShortText = left_out()


class ChangePasswordDTO(DTO):
    """The old password proves that it is you and not a tab left open."""

    current_password: SecretStr
    new_password: Password
