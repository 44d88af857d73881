"""Steps of background work: functions to call, which `catalysis worker app.activities` also runs for Temporal.

A DTO comes out, never a mapped object: that belongs to its session, and the session ends here.
"""

from uuid import UUID

from catalysis import DTO, DatabaseService, Session, activity
from catalysis.starter.app.dtos.users import UserDetailsDTO
from catalysis.starter.app.services import cleanup, users


class GetUserParams(DTO):
    """Whom to get."""

    id: UUID


class CleanUpParams(DTO):
    """How long a deleted task is kept."""

    older_than_days: int = 30


class CleanUpResult(DTO):
    """How many tasks were removed."""

    removed: int


@activity(display_name="Get a user")
async def get_user(session: Session, params: GetUserParams) -> UserDetailsDTO:
    """The user with role and permissions.

    Raises:
        NoResultFound: there is no such user.
    """
    return UserDetailsDTO.model_validate(await users.get_user(session, params.id))


@activity(display_name="Remove tasks deleted long ago")
async def clean_up(params: CleanUpParams) -> CleanUpResult:
    """Remove what was deleted long ago; doing it twice does no harm."""
    removed = await cleanup.remove_deleted_tasks(DatabaseService.database(), params.older_than_days)
    return CleanUpResult(removed=removed)
