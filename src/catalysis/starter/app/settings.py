"""What the application is told by its environment (`APP_*` variables or a `.env` file), beside `DATABASE_*`."""

import logging
import secrets
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalysis import SettingsError

SECRET_BYTES = 32
"""As long as the hash of HS256, the least that RFC 7518, section 3.2 allows."""


class AppSettings(BaseSettings):
    """Read them by `AppSettings.load()`, which sees to the secret."""

    model_config = SettingsConfigDict(
        env_prefix="APP_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = "development"
    secret_key: SecretStr | None = Field(
        default=None, min_length=SECRET_BYTES, description="signs the tokens"
    )
    token_minutes: int = Field(default=60, ge=1, le=60 * 24 * 30, description="how long a login lasts")

    @classmethod
    def load(cls, **given: Any) -> Self:
        """The settings from the environment, with `given` on top.

        Without APP_SECRET_KEY a development server makes one up, and forgets it when it stops.

        Raises:
            SettingsError: a value cannot be used, or production has no secret.
        """
        try:
            settings = cls(**given)
        except ValidationError as invalid:
            faults = (f"APP_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in invalid.errors())
            raise SettingsError("; ".join(faults)) from None
        if settings.secret_key is not None:
            return settings
        if settings.environment == "production":
            raise SettingsError(
                "APP_SECRET_KEY is not set.  Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        logging.getLogger(__name__).warning(
            "APP_SECRET_KEY is not set: using a random one, so logins end when this process does."
        )
        return settings.model_copy(update={"secret_key": SecretStr(secrets.token_urlsafe(SECRET_BYTES))})

    @property
    def has_demo(self) -> bool:
        """Whether a new database is given people and tasks to play with, whose password everybody knows."""
        return self.environment == "development"

    @property
    def signing_key(self) -> str:
        """The secret in clear, for signing and for nothing else."""
        assert self.secret_key is not None, "made without AppSettings.load()"
        return self.secret_key.get_secret_value()
