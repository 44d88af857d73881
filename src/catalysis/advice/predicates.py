"""What a statement asks of each table: SQL in, frozen `TableUse`s out.  No database, and nothing is ever executed.

A condition counts only if it is one of those that every row must meet; what is not understood is left out, which at
worst costs a candidate.  Whether an index helps is for the database to say.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from catalysis.advice.definitions import Key, TableName

Node = exp.Expression  # pyright: ignore[reportPrivateImportUsage] - documented, and re-exported without saying so
"""A node of sqlglot's syntax tree."""

Columns = Mapping[TableName, frozenset[str]]
"""The tables there are, with their columns."""

_READ_AS = {"postgresql": "postgres"}
_READ = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge)
_CHANGES = exp.Insert | exp.Update | exp.Delete | exp.Merge
_MAX_BRANCHES = 8
"""Conditions of an OR that are looked at; each would need an index of its own."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A condition without parameters, which a partial index may have for its own."""

    sql: str
    key: Key


@dataclass(frozen=True, slots=True)
class TableUse:
    """What one statement, or one branch of its OR, asks of one table."""

    table: TableName
    equal: tuple[Key, ...] = ()
    """Compared for equality with values."""
    joined: tuple[Key, ...] = ()
    """Compared for equality with columns of other tables."""
    ranges: tuple[tuple[Key, ...], ...] = ()
    """Compared by <, BETWEEN…: one column each, or several by a row comparison."""
    constants: tuple[Constant, ...] = ()
    order: tuple[Key, ...] = ()
    """The sort, as far as it begins with columns of this table; of the two ways to walk it, the rising one."""
    walks: bool = False
    """Whether only the first rows of that order are wanted."""
    contains: tuple[tuple[Key, str], ...] = ()
    """Columns that are asked what they contain, and the operator (`@>`, `?`, `&&`…)."""
    matches: tuple[Key, ...] = ()
    """Text that is searched by a pattern."""
    columns: frozenset[str] = frozenset()
    """All columns of the table that the statement names."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one statement asks of the database."""

    kind: str
    """`SELECT`, `UPDATE`, `DELETE`, `INSERT` or `MERGE`."""
    uses: tuple[TableUse, ...] = ()
    writes: TableName | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A statement that cannot be understood."""

    reason: str


def read_statement(sql: str, dialect: str, tables: Columns) -> Asked | Unread:
    """What `sql`, in SQLAlchemy's dialect of that name, asks of the `tables` there are.  Never raises."""
    try:
        tree: Any = sqlglot.parse_one(_spaced(sql), dialect=_READ_AS.get(dialect, dialect))
        if isinstance(tree, exp.Command) or not isinstance(tree, _READ):
            return Unread(f"{type(tree).__name__.upper()} is not analysed")
        return _Reader(cast("Node", tree), _READ_AS.get(dialect, dialect), tables).read()
    except SqlglotError as failure:
        return Unread(f"it cannot be parsed: {str(failure).splitlines()[0][:120]}")
    except RecursionError:
        return Unread("it is nested too deep")


_PLACEHOLDER = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|(\$\d+)(?=[^\s\w)])""")


def _spaced(sql: str) -> str:
    """With a blank after each `$1`: in `($1,$2)` sqlglot takes `$1,$` for the beginning of a string."""
    return _PLACEHOLDER.sub(lambda found: found[1] or f"{found[2]} ", sql)


@dataclass(slots=True)
class _Source:
    """A table in the FROM of one SELECT, under its alias."""

    table: TableName
    columns: frozenset[str]
    outer: bool = False
    """On the nullable side of an outer join: conditions of the WHERE still hold, those of its ON too."""
    found: dict[str, Any] = field(default_factory=dict[str, Any])


class _Reader:
    def __init__(self, tree: Node, dialect: str, tables: Columns) -> None:
        self.tree, self.dialect, self.tables = tree, dialect, tables
        self.by_name = {table.name: table for table in tables if table.schema is None} | {
            str(table): table for table in tables
        }
        self.ctes = {cte.alias for cte in tree.find_all(exp.CTE)}

    def read(self) -> Asked:
        kind = self.tree.key.upper() if isinstance(self.tree, _CHANGES) else "SELECT"
        target = self.tree.this if kind != "SELECT" else None
        if isinstance(target, exp.Schema):  # INSERT INTO t (a, b)
            target = target.this
        uses: list[TableUse] = []
        for scope in self.tree.find_all(exp.Select, exp.Update, exp.Delete):
            uses += self._uses_of(scope)
        writes = self._known(target) if isinstance(target, exp.Table) else None
        return Asked(kind, tuple(dict.fromkeys(uses)), writes)

    def _known(self, table: exp.Table) -> TableName | None:
        if not table.db and table.name in self.ctes:
            return None
        return self.by_name.get(f"{table.db}.{table.name}" if table.db else table.name)

    def _uses_of(self, scope: Node) -> Iterator[TableUse]:
        sources = self._sources(scope)
        if not sources:
            return
        for condition, only in self._conditions(scope):
            for part in _conjuncts(condition):
                self._note(part, sources, only)
        order, walks = self._order(scope, sources)
        columns = self._columns(scope, sources)
        for alias, source in sources.items():
            found = source.found
            use = TableUse(
                source.table,
                order=order[1] if order and order[0] == alias else (),
                walks=walks,
                columns=columns[alias],
            )
            for branch in found.pop("branches", ()):
                if branch.table == source.table:
                    yield replace(branch, columns=columns[alias])
            yield replace(use, **{name: tuple(dict.fromkeys(parts)) for name, parts in found.items()})

    # --- Tables, and the conditions on them ------------------------------------------------------------

    def _sources(self, scope: Node) -> dict[str, _Source]:
        sources: dict[str, _Source] = {}
        for table in scope.find_all(exp.Table):
            if _scope_of(table) is not scope:
                continue
            if (known := self._known(table)) is not None:
                sources[table.alias_or_name] = _Source(known, self.tables[known])
        return sources

    def _conditions(self, scope: Node) -> Iterator[tuple[Node, frozenset[str] | None]]:
        """WHERE, and each ON; an outer join's ON says something of the tables on its nullable side alone."""
        if (where := scope.args.get("where")) is not None:
            yield where.this, None
        for join in scope.find_all(exp.Join):
            on = join.args.get("on")
            if on is None or _scope_of(join) is not scope or join.side in ("RIGHT", "FULL"):
                continue
            within = frozenset(each.alias_or_name for each in join.this.find_all(exp.Table))
            yield on, within if join.side == "LEFT" else None

    def _owner(self, column: exp.Column, sources: Mapping[str, _Source]) -> str | None:
        if column.table:
            return column.table if column.table in sources else None
        owners = [alias for alias, source in sources.items() if column.name in source.columns]
        return owners[0] if len(owners) == 1 else None

    def _key(self, side: Node, sources: Mapping[str, _Source]) -> tuple[str, Key] | None:
        """The one table whose columns an expression is of, and the expression as a key of its index."""
        while isinstance(side, exp.Paren):
            side = side.this
        if side.find(exp.Placeholder, exp.Parameter, exp.Query, exp.AggFunc, exp.Window, exp.Star):
            return None
        columns = list(side.find_all(exp.Column))
        owners = {self._owner(column, sources) for column in columns}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None:
            return None
        if isinstance(side, exp.Column):
            return (owner, Key(side.name)) if side.name in sources[owner].columns else None
        if not isinstance(side, exp.Func | exp.JSONExtractScalar):
            return None
        return owner, Key(self._sql(side), is_expression=True)

    def _sql(self, expression: Node) -> str:
        """As it stands in an index: columns without their table."""

        def bare(node: Node) -> Node:
            return exp.column(node.this.copy()) if isinstance(node, exp.Column) else node

        return expression.copy().transform(bare).sql(dialect=self.dialect)

    # --- Single conditions -----------------------------------------------------------------------------

    def _note(self, part: Node, sources: Mapping[str, _Source], only: frozenset[str] | None) -> None:
        if isinstance(part, exp.Or):
            self._note_branches(part, sources)
            return
        for kind, owner, what in self._said(part, sources):
            if only is None or owner in only:
                sources[owner].found.setdefault(kind, []).append(what)

    def _note_branches(self, condition: exp.Or, sources: Mapping[str, _Source]) -> None:
        """Each side of an OR as a use of its own: the database may join the rows of several indexes."""
        for branch in list(_disjuncts(condition))[:_MAX_BRANCHES]:
            parts = {alias: _Source(each.table, each.columns) for alias, each in sources.items()}
            for part in _conjuncts(branch):
                if not isinstance(part, exp.Or):
                    self._note(part, parts, None)
            for alias, each in parts.items():
                if each.found:
                    said: dict[str, Any] = {
                        name: tuple(dict.fromkeys(found)) for name, found in each.found.items()
                    }
                    sources[alias].found.setdefault("branches", []).append(TableUse(each.table, **said))

    def _said(self, part: Node, sources: Mapping[str, _Source]) -> Iterator[tuple[str, str, Any]]:
        """(field of TableUse, alias, what it gets) for each thing that one condition says."""
        if isinstance(part, exp.Escape):
            part = part.this
        if (constant := self._constant(part, sources)) is not None:
            yield "constants", *constant
        if isinstance(part, exp.EQ | exp.NullSafeEQ):
            yield from self._comparison(part, sources, "equal")
        elif isinstance(part, exp.LT | exp.LTE | exp.GT | exp.GTE):
            yield from self._comparison(part, sources, "ranges")
        elif (found := self._key(part.this, sources) if isinstance(part, _ABOUT_ONE) else None) is not None:
            owner, key = found
            if isinstance(part, exp.In):
                yield "joined" if part.args.get("query") else "equal", owner, key
            elif isinstance(part, exp.Between):
                yield "ranges", owner, (key,)
            elif isinstance(part, exp.Like | exp.ILike):
                yield "matches", owner, key
            else:
                yield "contains", owner, (key, _CONTAINMENT[type(part)])

    def _comparison(
        self, part: exp.Binary, sources: Mapping[str, _Source], kind: str
    ) -> Iterator[tuple[str, str, Any]]:
        if kind == "ranges" and isinstance(part.this, exp.Tuple):
            yield from self._row_comparison(part.this, sources)
            return
        for side, other in ((part.this, part.expression), (part.expression, part.this)):
            found = self._key(side, sources)
            if found is None:
                continue
            owners = {self._owner(column, sources) for column in other.find_all(exp.Column)}
            if found[0] in owners:
                continue
            if kind == "ranges":
                yield kind, found[0], (found[1],)
            else:
                yield "joined" if owners or other.find(exp.Query) else kind, *found

    def _row_comparison(
        self, row: exp.Tuple, sources: Mapping[str, _Source]
    ) -> Iterator[tuple[str, str, Any]]:
        found = [self._key(each, sources) for each in row.expressions]
        keys = [each for each in found if each is not None]
        if keys and len(keys) == len(found) and len({owner for owner, _ in keys}) == 1:
            yield "ranges", keys[0][0], tuple(key for _, key in keys)

    def _constant(self, part: Node, sources: Mapping[str, _Source]) -> tuple[str, Constant] | None:
        subject = part
        while isinstance(subject, exp.Not | exp.Paren):
            subject = subject.this
        if isinstance(subject, exp.Is | exp.EQ):
            if not isinstance(subject.expression, exp.Null | exp.Boolean | exp.Literal):
                return None
            subject = subject.this
        found = self._key(subject, sources) if isinstance(subject, exp.Column) else None
        return None if found is None else (found[0], Constant(self._sql(part), found[1]))

    # --- Order and columns -----------------------------------------------------------------------------

    def _order(
        self, scope: Node, sources: Mapping[str, _Source]
    ) -> tuple[tuple[str, tuple[Key, ...]] | None, bool]:
        """The table whose columns the order begins with, those columns; and whether only the first are wanted."""
        if not isinstance(scope, exp.Select):
            return None, False
        if (extreme := self._extreme(scope, sources)) is not None:
            return (extreme[0], (extreme[1],)), True
        order = scope.args.get("order")
        if order is None or scope.args.get("group") or scope.args.get("distinct"):
            return None, False
        owner, keys = None, list[tuple[Key, exp.Ordered]]()
        for each in order.expressions:
            found = self._key(self._projected(each.this, scope), sources)
            if found is None or owner not in (None, found[0]):
                break
            owner = found[0]
            keys.append((found[1], each))
        walks = bool(scope.args.get("limit") or scope.args.get("fetch"))
        return (None, walks) if owner is None else ((owner, _rising(keys, self.dialect)), walks)

    def _extreme(self, scope: exp.Select, sources: Mapping[str, _Source]) -> tuple[str, Key] | None:
        """The column of `SELECT max(x)` alone: the database reads one end of an index for it."""
        if scope.args.get("group") or len(scope.expressions) != 1:
            return None
        projected = scope.expressions[0].unalias()
        return self._key(projected.this, sources) if isinstance(projected, exp.Max | exp.Min) else None

    def _projected(self, term: Node, scope: exp.Select) -> Node:
        """What an ORDER BY means that names what is selected, or numbers it."""
        if isinstance(term, exp.Column) and not term.table:
            for each in scope.expressions:
                if isinstance(each, exp.Alias) and each.alias == term.name:
                    return each.this
        return term

    def _columns(self, scope: Node, sources: Mapping[str, _Source]) -> dict[str, frozenset[str]]:
        named: dict[str, set[str]] = {alias: set() for alias in sources}
        for column in scope.find_all(exp.Column):
            owner = self._owner(column, sources)
            if owner is not None:
                named[owner].add(column.name)
        stars = [each for each in scope.find_all(exp.Star) if not isinstance(each.parent, exp.Count)]
        changed = isinstance(scope, exp.Update | exp.Delete)
        return {
            alias: source.columns if stars or changed else frozenset(named[alias] & source.columns)
            for alias, source in sources.items()
        }


_CONTAINMENT: dict[type[Node], str] = {
    exp.ArrayContainsAll: "@>",
    exp.ArrayContainedBy: "<@",
    exp.ArrayOverlaps: "&&",
    exp.JSONBContains: "?",
    exp.JSONBContainsTopKey: "?",
    exp.JSONBContainsAnyTopKeys: "?|",
    exp.JSONBContainsAllTopKeys: "?&",
}
_ABOUT_ONE = (exp.In, exp.Between, exp.Like, exp.ILike, *_CONTAINMENT)
"""Conditions on what stands before the operator."""


def _rising(keys: list[tuple[Key, exp.Ordered]], dialect: str) -> tuple[Key, ...]:
    """An order as keys of an index, of the two that can be walked for it the one whose first column rises."""
    turn = bool(keys[0][1].args.get("desc"))
    largest = dialect == "postgres"  # nulls are the largest values there, and the smallest on SQLite
    turned: list[Key] = []
    for key, said in keys:
        falls = bool(said.args.get("desc")) != turn
        first = bool(said.args.get("nulls_first")) != turn
        nulls = None if first == (falls == largest) or not largest else ("FIRST" if first else "LAST")
        turned.append(replace(key, descending=falls, nulls=nulls))
    return tuple(turned)


def _scope_of(node: Node) -> Node | None:
    return node.find_ancestor(exp.Select, exp.Update, exp.Delete)


def _conjuncts(condition: Node) -> Iterator[Node]:
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.this)
        yield from _conjuncts(condition.expression)
    elif isinstance(condition, exp.Paren):
        yield from _conjuncts(condition.this)
    else:
        yield condition


def _disjuncts(condition: Node) -> Iterator[Node]:
    if isinstance(condition, exp.Or):
        yield from _disjuncts(condition.this)
        yield from _disjuncts(condition.expression)
    elif isinstance(condition, exp.Paren):
        yield from _disjuncts(condition.this)
    else:
        yield condition
