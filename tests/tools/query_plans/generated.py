"""Plans as PostgreSQL might give them, with figures that may be anything."""

from hypothesis import strategies as st

from catalysis.tools.query_plans.reading import read_postgresql
from catalysis.tools.query_plans.tree import QueryPlan

FIGURES = st.one_of(st.just(0.0), st.floats(0, 1e9), st.floats(0, 1e-9))
DEPTH = 3
PLACES = st.sampled_from(["Outer", "Inner", "Subquery", "Member", "InitPlan", "SubPlan"])
KINDS = st.sampled_from(
    [
        *(
            "Nested Loop",
            "Merge Join",
            "Hash Join",
            "Hash",
            "Limit",
            "Gather",
            "Gather Merge",
            "Sort",
            "CTE Scan",
        ),
        *("Seq Scan", "Index Scan", "Bitmap Heap Scan", "Bitmap Index Scan", "Aggregate", "ModifyTable"),
    ]
)
NAMES = st.sampled_from(["a", "b"])
CONDITIONS = st.sampled_from(
    ["(a.b_id = 5)", "(b_id = $1)", "(a.b_id = b.id)", "(NOT (hashed SubPlan 1))", "((x)"]
)
SAID = {
    "Relation Name": NAMES,
    "Alias": NAMES,
    "Filter": CONDITIONS,
    "Hash Cond": CONDITIONS,
    "Merge Cond": CONDITIONS,
    "Join Filter": CONDITIONS,
    "Rows Removed by Filter": st.integers(0, 10**6),
    "Hash Batches": st.integers(1, 4),
    "Temp Written Blocks": st.integers(0, 9),
    "Inner Unique": st.booleans(),
}
"""What EXPLAIN may say of a step beside its figures."""


@st.composite
def steps(draw: st.DrawFn, depth: int = 0, analyzed: bool = True) -> dict[str, object]:
    """What EXPLAIN says of a step: children may cost more than their parent, as they do under a Limit."""
    said: dict[str, object] = {
        "Node Type": draw(KINDS),
        "Parent Relationship": draw(PLACES),
        "Startup Cost": 0.0,
        "Total Cost": draw(FIGURES),
        "Plan Rows": draw(st.integers(0, 10**6)),
        "Plan Width": 4,
        "Subplan Name": draw(st.sampled_from(["CTE x", "InitPlan 1"])),
        "CTE Name": draw(st.sampled_from(["x", "y"])),
        "Workers Planned": draw(st.integers(0, 3)),
        "Operation": draw(st.sampled_from(["Delete", "Insert"])),
    }
    said |= draw(st.fixed_dictionaries({}, optional=SAID))
    if analyzed:
        said |= {"Actual Startup Time": 0.0, "Actual Total Time": draw(FIGURES)}
        said |= {"Actual Rows": draw(st.integers(0, 1000)), "Actual Loops": draw(st.integers(0, 1000))}
    is_join = said["Node Type"] in ("Nested Loop", "Merge Join", "Hash Join")
    if depth == DEPTH and is_join:
        said["Node Type"] = "Result"
    elif is_join:  # which always has both sides
        sides = [draw(steps(depth + 1, analyzed)), draw(steps(depth + 1, analyzed))]
        sides[0]["Parent Relationship"], sides[1]["Parent Relationship"] = "Outer", "Inner"
        said["Plans"] = sides
    elif depth < DEPTH:
        said["Plans"] = draw(st.lists(steps(depth + 1, analyzed), max_size=2))
    return said


@st.composite
def plans(draw: st.DrawFn) -> QueryPlan:
    analyzed = draw(st.booleans())
    document: dict[str, object] = {"Plan": draw(steps(0, analyzed))}
    if analyzed:
        document |= {"Planning Time": 0.1, "Execution Time": 1.0}
    return read_postgresql([[[document]]])
