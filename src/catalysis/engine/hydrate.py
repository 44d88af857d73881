"""A function generated once a plan, which turns driver rows into mapped instances in a session's identity map.

It does what SQLAlchemy does for an instance that the session does not know yet, and for one
that the same rows have brought before.  An instance that was in the session already goes to SQLAlchemy itself, row
by row (`Load.instance`): its unflushed changes, expired attributes and options are too many cases to write twice.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import ref

from sqlalchemy.util import warn

from catalysis.engine.alchemy.loading import Load, init_collection
from catalysis.engine.alchemy.states import (
    IDENTITY_MAP,
    NAMES,
    compiled,
    instance_lines,
    maker_arguments,
    state_lines,
)
from catalysis.engine.conversions import NAMES as CONVERTING
from catalysis.engine.shape import Child, Node, Row

Hydrator = Callable[[Sequence[Any], Load], list[Any]]
Conversion = tuple[str, Any]


class UniqueList:
    """Fills a collection with each instance once; SQLAlchemy calls `append` where it takes over."""

    __slots__ = ("add", "seen")

    def __init__(self, add: Callable[[Any], None]) -> None:
        self.add = add
        self.seen: set[int] = set()

    def append(self, instance: Any) -> None:
        """Add the instance unless it is there."""
        if id(instance) not in self.seen:
            self.seen.add(id(instance))
            self.add(instance)


_append: Callable[[Any, Any], None] = list[Any].append
"""Without SQLAlchemy's events, as it is for what is loaded."""


def _new_collection(child: Child, state: Any, dict_: Any, load: Load) -> UniqueList:
    adapter = init_collection(state, dict_, child.attribute)
    if child.is_plain_list:
        filled = dict_[child.attribute]
        unique = UniqueList(partial(_append, filled))
    else:
        unique = UniqueList(adapter.append_without_event)
    load.collections[state, child.attribute] = unique
    return unique


def _met_twice(node: Node, child: Child) -> None:
    warn(
        "Multiple rows returned with uselist=False for eagerly-loaded attribute "
        f"'{node.cls.__name__}.{child.attribute}' "
    )


def hydrate_with(row: Row, conversions: Sequence[Conversion | None], *, of_many: bool = False) -> Hydrator:
    """The function for rows of this shape, whose columns are converted by these (`conversions.conversion`).

    `of_many`: by what is compiled, where that can be; calling it is not worth it for a few rows.
    """
    writer = _Writer(row, conversions, of_many=of_many)
    source = writer.write()
    namespace = writer.names
    exec(compile(source, "<catalysis hydrator>", "exec"), namespace)  # noqa: S102 - written above, of numbers and names
    return namespace["hydrate"]


class _Writer:
    """Writes the source; `names` holds what it refers to."""

    def __init__(self, row: Row, conversions: Sequence[Conversion | None], *, of_many: bool) -> None:
        self.row = row
        self.conversions = conversions
        self.makers = {node.number: maker_arguments(node) if of_many else None for node in row.nodes}
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "ref": ref,
            **NAMES,
            **CONVERTING,
            "new_collection": _new_collection,
            "met_twice": _met_twice,
        }

    def write(self) -> str:
        self.line(0, "def hydrate(rows, load):")
        self.prologue(1)
        self.line(1, "for row in rows:")
        self.line(2, f"{''.join(f'c{number}, ' for number in range(self.row.width))}= row")
        for entry in self.row.entries:
            if isinstance(entry, Node):
                self.node(entry, 2)
        parts = [
            f"o{each.number}" if isinstance(each, Node) else self.value(each) for each in self.row.entries
        ]
        self.line(2, f"add({parts[0]})" if self.row.is_scalar else f"add(({', '.join(parts)},))")
        self.line(1, "return made")
        return "\n".join(self.lines)

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def prologue(self, depth: int) -> None:
        self.line(depth, "made = []")
        self.line(depth, "add = made.append")
        if not self.row.nodes:
            return
        for text in IDENTITY_MAP:
            self.line(depth, text)
        if self.row.has_options:
            self.line(depth, "options = load.load_options")
        if any(child.is_collection for node in self.row.nodes for child in node.children):
            self.line(depth, "collections = load.collections")
        if any(self.makers.values()):
            self.line(depth, "absent, unsure = compiled.absent, compiled.unsure")
        for node in self.row.nodes:
            self.line(depth, f"met{node.number} = {{}}")
            if (arguments := self.makers[node.number]) is not None:
                self.names |= {"compiled": compiled, f"A{node.number}": arguments}
                taken = "options" if self.row.has_options else None
                given = f"A{node.number}, states, home, number, session_id, {taken}"
                self.line(depth, f"find{node.number} = compiled.maker({given})")
                self.line(depth, f"make{node.number} = find{node.number}.make")
            if node.loads_after:
                self.line(depth, f"after{node.number} = load.after({node.number})")

    def value(self, column: int) -> str:
        """The expression of a column's value."""
        found = self.conversions[column]
        if found is None:
            return f"c{column}"
        expression, self.names[f"p{column}"] = found
        return expression.format(f"c{column}", f"p{column}")

    def processed_row(self) -> str:
        return f"({', '.join(self.value(column) for column in range(self.row.width))},)"

    def node(self, node: Node, depth: int) -> None:
        n = node.number
        self.names |= {
            f"C{n}": node.cls,
            f"I{n}": node.identity_class,
            f"P{n}": node.load_path,
        }
        for column in node.key:
            if self.conversions[column] is not None:
                self.line(depth, f"k{n}_{column} = {self.value(column)}")
        keys = [f"k{n}_{c}" if self.conversions[c] is not None else f"c{c}" for c in node.key]
        known = dict(zip(node.key, keys, strict=True))
        values = [known.get(column) or self.value(column) for _, column in node.columns]
        if self.makers[n] is None:
            self.found_or_new(node, keys, values, depth)
        else:
            self.made(node, keys, values, depth)
        if node.children:
            self.line(depth, f"if n{n} is not None:")
            self.line(depth + 1, f"d{n} = o{n}.__dict__")
            for child in node.children:
                self.child(node, child, depth + 1)

    def made(self, node: Node, keys: list[str], values: list[str], depth: int) -> None:
        """By what is compiled."""
        n = node.number
        self.line(depth, f"o{n} = find{n}({', '.join(keys)})")
        self.line(depth, f"if o{n} is absent:")
        self.line(depth + 1, f"n{n} = True")
        self.line(depth + 1, f"o{n} = make{n}({', '.join(values)})")
        if node.children or node.fresh or node.loads_after:
            self.line(depth + 1, f"d{n} = o{n}.__dict__")
            self.line(depth + 1, f"s{n} = d{n}['_sa_instance_state']")
            self.told(node, depth + 1)
        self.line(depth, f"elif o{n} is unsure:")
        self.line(depth + 1, f"o{n} = load.instance({n}, {self.processed_row()})")
        self.line(depth + 1, f"n{n} = None")
        if not node.children:
            return
        self.line(depth, f"elif o{n} is None:")
        self.line(depth + 1, f"n{n} = None")
        self.line(depth, "else:")
        self.line(depth + 1, f"n{n} = False")
        self.line(depth + 1, f"s{n} = o{n}.__dict__['_sa_instance_state']")

    def found_or_new(self, node: Node, keys: list[str], values: list[str], depth: int) -> None:
        n = node.number
        self.line(depth, f"k{n} = (I{n}, ({', '.join(keys)},), None)")
        self.line(depth, f"s{n} = get(k{n})")
        self.line(depth, f"if s{n} is None or (o{n} := s{n}.obj()) is None:")
        junction = " or " if node.needs_whole_key else " and "
        self.line(depth + 1, f"if {junction.join(f'{key} is None' for key in keys)}:")
        self.line(depth + 2, f"o{n} = n{n} = None")
        self.line(depth + 1, "else:")
        self.new_instance(node, values, depth + 2)
        self.line(depth, f"elif s{n}.runid == number and s{n}.load_path is P{n}:")
        self.line(depth + 1, f"n{n} = False")
        self.line(depth, "else:")
        self.line(depth + 1, f"o{n} = load.instance({n}, {self.processed_row()})")
        self.line(depth + 1, f"n{n} = None")

    def new_instance(self, node: Node, values: list[str], depth: int) -> None:
        n = node.number
        self.line(depth, f"n{n} = True")
        made = instance_lines(n, node.cls, node.manager, self.names)
        for text in (*made, *state_lines(n, node.expired, has_options=self.row.has_options)):
            self.line(depth, text)
        named = [f"'_sa_instance_state': s{n}"]
        named += [f"{name!r}: {value}" for (name, _), value in zip(node.columns, values, strict=True)]
        named += [f"{name!r}: None" for name in node.to_one]  # the room for what comes next
        self.line(depth, f"d{n} = {{{', '.join(named)}}}")
        self.line(depth, f"set_dict{n}(o{n}, d{n})")
        self.line(depth, f"states[k{n}] = s{n}")
        self.told(node, depth)

    def told(self, node: Node, depth: int) -> None:
        """What is done with a new instance."""
        n = node.number
        for number, populate in enumerate(node.fresh):
            self.names[f"f{n}_{number}"] = populate
            self.line(depth, f"f{n}_{number}(s{n}, d{n}, row)")
        if node.loads_after:
            self.line(depth, f"after{n}[s{n}] = True")

    def child(self, node: Node, child: Child, depth: int) -> None:
        n, m, name = node.number, child.node.number, child.attribute
        self.names[f"R{m}"] = child
        if child.is_collection:
            self.line(depth, f"u{m} = None if n{n} else collections.get((s{n}, {name!r}))")
            self.line(depth, f"if u{m} is None:")
            self.line(depth + 1, f"u{m} = new_collection(R{m}, s{n}, d{n}, load)")
            self.node(child.node, depth)
            self.line(depth, f"if o{m} is not None:")
            self.line(depth + 1, f"u{m}.append(o{m})")
            return
        self.met_before(child.node, depth)
        self.line(depth, f"if n{n} or {name!r} not in d{n}:")
        self.line(depth + 1, f"d{n}[{name!r}] = o{m}")
        self.line(depth, f"elif d{n}[{name!r}] is not o{m}:")
        self.names[f"N{n}"] = node
        self.line(depth + 1, f"met_twice(N{n}, R{m})")

    def met_before(self, node: Node, depth: int) -> None:
        """Many rows lead to few instances: those with nothing below them are remembered by their bare key."""
        n, column = node.number, node.key[0] if len(node.key) == 1 else None
        if column is None or node.children or node.loads_after:
            self.node(node, depth)
            return
        self.line(depth, f"o{n} = met{n}.get(c{column})")
        self.line(depth, f"if o{n} is None:")
        self.node(node, depth + 1)
        self.line(depth + 1, f"if o{n} is not None:")
        self.line(depth + 2, f"met{n}[c{column}] = o{n}")
