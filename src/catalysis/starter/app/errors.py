"""What the application refuses, and how it answers.  The database's own errors are answered by Catalysis."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from catalysis.starter.app.permissions import PermissionName


class Refused(Exception):
    """It would leave things in a state that nobody can want; the message says why, for the user to read."""

    status = 409


class UnknownReference(Refused):
    """The body refers to something that does not exist."""

    status = 422


class NotPermitted(Refused):
    """The caller's role does not allow it."""

    status = 403

    def __init__(self, permission: PermissionName) -> None:
        super().__init__(f"This needs the permission {permission}.")


def add_refusals(app: FastAPI) -> None:
    """Answer `Refused` and its kinds with their status and message."""
    app.add_exception_handler(Refused, _refuse)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": str(error)}, error.status)
