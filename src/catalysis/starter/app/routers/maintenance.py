"""Work that the application does behind its answers."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Request

from catalysis.integrations.fastapi import database_of
from catalysis.starter.app.dependencies import require_permission
from catalysis.starter.app.dtos.tasks import AcceptedDTO, CleanUpDTO
from catalysis.starter.app.models import User
from catalysis.starter.app.services.cleanup import remove_deleted_tasks

router = APIRouter(prefix="/maintenance", tags=["maintenance"])

Admin = Annotated[User, Depends(require_permission("tasks:admin"))]


@router.post("/clean-up", status_code=202, summary="Remove tasks deleted long ago")
async def clean_up(
    request: Request, background: BackgroundTasks, admin: Admin, wanted: CleanUpDTO
) -> AcceptedDTO:
    """It begins when this answer has been sent."""
    background.add_task(remove_deleted_tasks, database_of(request), wanted.older_than_days)
    return AcceptedDTO()
