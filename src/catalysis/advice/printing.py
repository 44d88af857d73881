"""Advice as JSON and for the terminal.  Nothing but laying out."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from catalysis.advice.advise import Advice, Gain, ProposedIndex
from catalysis.advice.revision import model_line
from catalysis.advice.workload import Statement

_SHOWN = 160


def as_json(advice: Advice) -> dict[str, Any]:
    """Everything in it, as plain values for `json.dumps`; costs are in the planner's units, sizes in bytes."""
    return {
        "dialect": advice.dialect,
        "indexes": [_index_as_json(each) for each in advice.indexes],
        "to_drop": [
            {
                "name": each.name,
                "table": str(each.index.definition.table),
                "size": each.size,
                "reason": each.reason,
            }
            for each in advice.to_drop
        ],
        "unproved": [
            {"ddl": each.ddl, "reason": each.reason, "statements": [one.sql for one in each.statements]}
            for each in advice.unproved
        ],
        "statements": [
            {
                **_statement_as_json(each.statement),
                "cost_before": each.before,
                "cost_after": each.after,
                "indexes": list(each.indexes),
            }
            for each in advice.statements
        ],
        "skipped": [{"sql": each.statement.sql, "reason": each.reason} for each in advice.skipped],
        "remarks": list(advice.remarks),
    }


def _index_as_json(index: ProposedIndex) -> dict[str, Any]:
    return {
        "name": index.name,
        "table": str(index.definition.table),
        "ddl": index.ddl,
        "model": model_line(index),
        "size": index.size,
        "writes": index.writes,
        "proved_by": index.proved_by,
        "gains": [
            {
                **_statement_as_json(each.statement),
                "cost_before": each.before,
                "cost_after": each.after,
                "cost_without": each.without,
            }
            for each in index.gains
        ],
    }


def _statement_as_json(statement: Statement) -> dict[str, Any]:
    said: dict[str, Any] = {"sql": statement.sql, "calls": statement.calls, "seconds": statement.seconds}
    if statement.derived_from is not None:
        said["derived_from"] = statement.derived_from
    return said


def as_tables(advice: Advice) -> Group:
    """Indexes to add with what they do for which statement, indexes that could go, and what was left out."""
    parts: list[Any] = []
    for index in advice.indexes:
        parts += [
            Text(index.ddl + ";", style="bold green"),
            Text(f"{_about(index)}\nin the model: {model_line(index)}", style="dim"),
            _gains(index),
            "",
        ]
    if not advice.indexes:
        parts.append(Text("No index is proposed: none was proved to help enough."))
    if advice.to_drop:
        parts.append(_droppable(advice))
    for reason in dict.fromkeys(each.reason for each in advice.unproved):
        ddl = "".join(f"\n  {each.ddl};" for each in advice.unproved if each.reason == reason)
        parts.append(Text.from_markup(f"[yellow]Not proved[/], since {escape(reason)}:{escape(ddl)}"))
    for each in advice.skipped:
        sql = _short(each.statement.sql)
        parts.append(Text.from_markup(f"[yellow]not analysed[/] {escape(sql)}: {escape(each.reason)}"))
    parts += [Text(each, style="yellow") for each in advice.remarks]
    doubtful = {one.sql for each in advice.unproved for one in each.statements}
    needless = sum(not each.indexes and each.statement.sql not in doubtful for each in advice.statements)
    parts.append(Text(f"{len(advice.statements)} statements analysed; {needless} of them need no index."))
    return Group(*parts)


def _about(index: ProposedIndex) -> str:
    size = "" if index.size is None else f"{index.size / 1024**2:,.1f} MiB, "
    how = "in a transaction, undone" if index.proved_by == "transaction" else f"by {index.proved_by}"
    return f"{size}proved {how}; {index.writes:,} calls of the workload write to its table"


def _gains(index: ProposedIndex) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("calls", justify="right")
    costs = index.gains[0].before is not None
    if costs:
        table.add_column("cost before", justify="right")
        table.add_column("after", justify="right")
    table.add_column("statement", overflow="fold")
    for each in index.gains:
        said = _short(each.statement.sql)
        if each.statement.derived_from is not None:
            said = f"{said}  (sent by the server for: {_short(each.statement.derived_from)})"
        figures = [f"{each.before:,.0f}", f"{each.after:,.0f}"] if costs else []
        table.add_row(
            f"{each.statement.calls:,}", *figures, escape(said if costs else f"{said}\n{_steps(each)}")
        )
    return table


def _steps(gain: Gain) -> str:
    """SQLite's plan before and after, the steps in one line each."""
    before, after = (
        "; ".join(line.strip() for line in plan.splitlines()[1:])
        for plan in (gain.plan_before, gain.plan_after)
    )
    return f"  {before}\n  → {after}"


def _droppable(advice: Advice) -> Table:
    table = Table(title="Indexes that could go", title_justify="left", box=None, pad_edge=False)
    for column in ("index", "MiB", "why"):
        table.add_column(column, justify="right" if column == "MiB" else "left")
    for each in advice.to_drop:
        size = "" if each.size is None else f"{each.size / 1024**2:,.1f}"
        table.add_row(escape(each.name), size, escape(each.reason))
    return table


def _short(sql: str) -> str:
    joined = " ".join(sql.split())
    if len(joined) <= _SHOWN:
        return joined
    _, _, rest = joined.partition(" FROM ")
    told = f"{joined[:40]}… FROM {rest}" if rest else joined
    return told if len(told) <= 2 * _SHOWN else f"{told[:_SHOWN]} … {told[-_SHOWN:]}"
