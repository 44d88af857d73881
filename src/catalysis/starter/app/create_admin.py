"""`python -m app.create_admin NAME EMAIL` makes the first user of a database that has no demo data."""

import asyncio
from typing import Annotated

import typer
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from catalysis import CatalysisError, DatabaseService
from catalysis.starter.app.dtos.users import CreateUserDTO
from catalysis.starter.app.permissions import ADMIN
from catalysis.starter.app.prepare import prepare
from catalysis.starter.app.services.users import create_user


def create_admin(
    username: str,
    email: str,
    password: Annotated[str, typer.Option(prompt=True, confirmation_prompt=True, hide_input=True)],
) -> None:
    """Make a user who may do everything."""
    try:
        new = CreateUserDTO(username=username, email=email, password=password)
        asyncio.run(_create(new))
    except ValidationError as invalid:
        faults = invalid.errors(include_input=False)
        fault = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in faults)
    except IntegrityError:
        fault = "there is a user with this name or address already."
    except CatalysisError as failure:
        fault = str(failure)
    else:
        typer.echo(f"{new.username} may now do everything.")
        return
    typer.echo(f"error: {fault}", err=True)
    raise typer.Exit(1)


async def _create(new: CreateUserDTO) -> None:
    database = DatabaseService.database()
    try:
        await prepare(database, with_demo=False)
        async with database.session() as db:
            await create_user(db, new, role=ADMIN)
    finally:
        await database.close()


if __name__ == "__main__":
    typer.run(create_admin)
