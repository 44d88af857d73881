"""A tripwire: what we read of SQLAlchemy's statements is where we read it, and means what we take it for."""

from typing import Any

import pytest
from sqlalchemy import asc, desc, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import distinct_on as distinct_on_extension
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defaultload,
    joinedload,
    load_only,
    selectin_polymorphic,
    with_loader_criteria,
)

from catalysis import include_deleted
from catalysis.engine.alchemy.statements import (
    collection_from_join,
    distinct_on,
    groups,
    is_distinct,
    is_joined,
    is_limited,
    is_selecting_from,
    leaves,
    options,
    orders,
    origins,
    read_order,
    unnameable,
    unordered,
)
from tests.tools.paged_models import Animal, Dog, Note, Owner, Tag, Task, task_tag

plain_select = select(Task)
union = select(Task.id).union(select(Note.task_id))


def read(clause: Any, statement: Any = plain_select) -> tuple[str, bool, bool | None]:
    (given,) = orders(statement.order_by(clause))
    expression, descending, nulls_first = read_order(given, statement)
    return str(expression), descending, nulls_first


def test_every_way_to_write_an_order_is_read():
    assert read(Task.title) == ("task.title", False, None)
    assert read(Task.title.desc()) == ("task.title", True, None)
    assert read(Task.title.asc().nulls_last()) == ("task.title", False, False)
    assert read(desc(Task.title).nulls_first()) == ("task.title", True, True)
    assert read("title") == ("task.title", False, None)
    assert read(desc("title")) == ("task.title", True, None)
    assert read(asc("title").nulls_first()) == ("task.title", False, True)
    assert read(func.lower(Task.title)) == ("lower(task.title)", False, None)
    assert read(text("title")) == ("None", False, None)
    assert read("nothing") == ("None", False, None)
    label = func.lower(Task.title).label("lower")
    for clause in (label, "lower"):
        assert read(clause, select(Task, label)) == ("lower(task.title)", False, None)
    for clause in (label.desc(), desc("lower"), desc(label)):
        assert read(clause, select(Task, label)) == ("lower(task.title)", True, None)
    assert read("name", select(Task.id).join(Task.owner)) == ("owner.name", False, None)
    assert read("id", union)[0].endswith(".id")


@pytest.mark.parametrize(
    ("question", "yes", "no"),
    [
        (
            is_limited,
            [plain_select.limit(1), plain_select.offset(1), plain_select.fetch(1), union.limit(1)],
            [],
        ),
        (is_distinct, [plain_select.distinct(), plain_select.ext(distinct_on_extension(Task.id))], [union]),
        (distinct_on, [plain_select.ext(distinct_on_extension(Task.id))], [plain_select.distinct(), union]),
        (
            groups,
            [plain_select.group_by(Task.id), plain_select.group_by(tuple_(Task.id, Task.title))],
            [union],
        ),
        (is_selecting_from, [plain_select.select_from(Owner)], [plain_select.join(Owner)]),
        (is_joined, [plain_select.join(Owner), plain_select.join(Owner).with_only_columns(Task.id)], []),
        (
            options,
            [
                plain_select.options(include_deleted()),
                plain_select.options(with_loader_criteria(Task, Task.id > 1)),
            ],
            [
                plain_select.options(joinedload(Task.tags)),
                plain_select.options(joinedload("*"), load_only(Task.id), defaultload(Task.owner)),
                select(Animal).options(selectin_polymorphic(Animal, [Dog])),
            ],
        ),
        (
            collection_from_join,
            [
                select(Owner).join(Owner.tasks).options(contains_eager(Owner.tasks)),
                select(Task).options(contains_eager(Task.owner).contains_eager(Owner.tasks)),
            ],
            [select(Task).options(contains_eager(Task.owner)), select(Task).options(joinedload(Task.tags))],
        ),
    ],
)
def test_the_parts_of_a_statement_are_found(question: Any, yes: list[Any], no: list[Any]):
    assert all(question(statement) for statement in yes)
    assert not any(question(statement) for statement in [*no, plain_select])


def test_options_survive_a_change_of_columns():
    option = include_deleted()
    statement = (
        select(Task).options(option, joinedload(Task.tags)).join(Task.owner).with_only_columns(Task.id)
    )
    assert options(statement) == [option]


def test_a_copy_without_order_locks_and_options():
    given = select(Task).order_by(Task.id).with_for_update().options(joinedload(Task.tags), include_deleted())
    sql = str(unordered(given))
    assert "ORDER BY" not in sql
    assert "FOR UPDATE" not in sql
    assert "JOIN" not in sql
    assert options(unordered(given)) == []
    assert orders(given), "the original was changed"
    assert options(given), "the original was changed"


def test_what_is_selected_from():
    def names(statement: Any) -> list[list[str]]:
        return [
            [str(getattr(leaf, "name", leaf)) for leaf in leaves(origin)] for origin in origins(statement)
        ]

    assert names(select(Task)) == [["task"]]
    assert names(select(Task).options(joinedload(Task.owner))) == [["task"]]
    assert names(select(Task).join(Task.owner).options(joinedload(Task.notes))) == [["task", "owner"]]
    assert names(select(Dog)) == [["animal", "dog"]]
    assert names(select(Task, Owner)) == [["task"], ["owner"]]

    alias = task_tag.alias()
    for statement, number in (
        (select(Task).join(Task.tags), 1),
        (select(Task).join(Task.tags.of_type(aliased(Tag))), 1),
        (select(Task).join(task_tag).join(Tag), 0),
        (select(Task).join(alias, alias.c.task_id == Task.id), 0),
        (select(Task).select_from(Task).join(alias, alias.c.task_id == Task.id), 0),
    ):
        (origin,) = origins(statement)
        assert sum(unnameable(statement, leaf) for leaf in leaves(origin)) == number
