"""Statements over distributed tables: whether they say which shard they are about, and what is done where not."""

import warnings
from collections.abc import Mapping
from textwrap import shorten
from typing import Any, Literal, get_args

from sqlalchemy import Engine
from sqlalchemy.orm import ORMExecuteState

from catalysis.distribution.declared import has_distributed
from catalysis.engine.alchemy.carrying import DISTRIBUTION_CHECK, Uncarried, said_of, uncarried
from catalysis.errors import CrossShardQuery, DistributionError, no_choice
from catalysis.events import call_site

LONGEST_SQL = 500
"""The most characters of a statement that an error quotes."""

DistributionCheck = Literal["allow", "warn", "raise"]
DISTRIBUTION_CHECKS = get_args(DistributionCheck)


def uncarried_by(statement: Any, engine: Engine) -> Uncarried | None:
    """The first distributed table that a SELECT asks every shard of."""
    return uncarried(statement, engine) if has_distributed() else None


def meet_uncarried(found: Uncarried, options: Mapping[str, Any], check: DistributionCheck) -> None:
    """Do as the statement's options say, or else the session's `check`.

    Raises:
        DistributionError: that is to raise.
        ValueError: the options say none of what there is.
    """
    if (check := said_of(options) or check) == "allow":
        return
    if check not in DISTRIBUTION_CHECKS:
        raise no_choice(DISTRIBUTION_CHECK, check, DISTRIBUTION_CHECKS)
    message = (
        f"A statement reads or writes table {found.table!r} without a value for {found.column!r}, by which its rows "
        f"are distributed: every shard would be asked.  Compare {found.column!r} with a value, join on it, or open "
        f"the session with tenant=… where it is the tenant's; if all shards are meant, add "
        f".execution_options({DISTRIBUTION_CHECK}='allow')."
    )
    if check == "raise":
        raise DistributionError(f"{message}  It was not sent: {shorten(found.sql, LONGEST_SQL)}")
    site = call_site()
    if site is None:
        warnings.warn(CrossShardQuery(message), stacklevel=2)
    else:
        warnings.warn_explicit(CrossShardQuery(message), None, site.file, site.line)


def check_executing(executing: ORMExecuteState, check: DistributionCheck) -> None:
    """The same for a statement that is about to run through SQLAlchemy; rows updated by their keys carry them.

    Raises:
        DistributionError: it carries no value, and that is to raise.
        ValueError: it carries none, and its options say none of what there is.
    """
    if not has_distributed() or (said_of(executing.execution_options) or check) == "allow":
        return
    given = executing.parameters
    if not (executing.is_select or executing.is_update or executing.is_delete) or isinstance(given, list):
        return
    columns = given.keys() if isinstance(given, Mapping) and executing.is_update else ()
    engine = executing.session.get_bind(**executing.bind_arguments).engine
    if (found := uncarried(executing.statement, engine, columns)) is not None:
        meet_uncarried(found, executing.execution_options, check)
