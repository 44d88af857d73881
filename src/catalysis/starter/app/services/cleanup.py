"""Work that nobody waits for."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete
from sqlmodel import col

from catalysis import Database, hard_delete
from catalysis.starter.app.models import Task


async def remove_deleted_tasks(database: Database, older_than_days: int) -> int:
    """Remove for good the tasks that were deleted that many days ago or earlier; how many there were."""
    before = datetime.now(UTC) - timedelta(days=older_than_days)
    async with database.session() as db:
        removed = await db.exec(delete(Task).where(col(Task.deleted_at) <= before).options(hard_delete()))
        await db.commit()
        return removed.rowcount
