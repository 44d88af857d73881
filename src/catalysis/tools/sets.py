"""One statement over a set of rows: `update_where` and `delete_where`.

The rows stay in the database; objects of the session that are among them are kept in step.  Nothing is committed.
"""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import ColumnExpressionArgument, CursorResult, delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from catalysis.errors import BulkError
from catalysis.tools.rows import RowReader, values_on_update


async def update_where(
    session: AsyncSession,
    model: type[Any],
    *criteria: ColumnExpressionArgument[bool],
    values: Mapping[str, Any],
    everything: bool = False,
) -> int:
    """UPDATE the rows that meet all `criteria`, and return how many there were.

    `values` go by attribute name and may be SQL expressions (`{"tries": Job.tries + 1}`).  `onupdate` columns are
    set.  Objects of the session follow; an attribute set to what only the database can compute is expired.

    Raises:
        BulkError: a name is no column attribute, or there are no criteria and `everything` is not True.
    """
    _refuse_everything("update_where", model, criteria, everything)
    reader = RowReader("update_where", model)
    reader.known("values", values)
    set_ = {reader.columns[name][0]: value for name, value in values.items()}
    # Said here and not left to SQLAlchemy, so that objects of the session get the same values.
    set_ |= values_on_update(reader, set_)
    result = await session.execute(update(model).values(set_).where(*criteria))
    return cast("CursorResult[Any]", result).rowcount


async def delete_where(
    session: AsyncSession,
    model: type[Any],
    *criteria: ColumnExpressionArgument[bool],
    everything: bool = False,
) -> int:
    """DELETE the rows that meet all `criteria`, and return how many there were.

    In a `catalysis.Session` the rows of a `SoftDelete` model are marked, and rows marked before do not count.

    Raises:
        BulkError: there are no criteria and `everything` is not True.
    """
    _refuse_everything("delete_where", model, criteria, everything)
    result = await session.execute(delete(model).where(*criteria))
    return cast("CursorResult[Any]", result).rowcount


def _refuse_everything(operation: str, model: type[Any], criteria: tuple[Any, ...], everything: bool) -> None:
    if not criteria and not everything:
        raise BulkError(
            f"{operation} {model.__name__}: there are no criteria, so every row would be meant.  Add one, or say "
            "so with everything=True."
        )
