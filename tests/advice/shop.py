"""A few tables with enough rows for an index to matter, on either backend."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Boolean, Column, DateTime, ForeignKey, Integer, MetaData, String, Table, insert
from sqlalchemy.dialects import postgresql

from catalysis import Database

metadata = MetaData()
customer = Table(
    "customer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("email", String(100), nullable=False),
    Column("city", String(50), nullable=False),
)
order = Table(
    "order",  # a word of SQL's, so that quoting is tested all along
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer_id", Integer, ForeignKey("customer.id"), nullable=False),
    Column("state", String(20), nullable=False),
    Column("paid", Boolean, nullable=False),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("notes", JSON().with_variant(postgresql.JSONB(), "postgresql")),
    Column("tags", JSON().with_variant(postgresql.ARRAY(String), "postgresql")),
    Column("text", String(200), nullable=False),
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def open_shop(database: Database, orders: int = 20_000) -> None:
    """Make and fill the tables, and let the database know about them."""
    await database.create_all(metadata)
    customers = orders // 10
    async with database.engine.begin() as connection:
        people = [
            {"id": n, "email": f"Person{n}@example.org", "city": f"city {n % 40}"} for n in range(customers)
        ]
        await connection.execute(insert(customer), people)
        for start in range(0, orders, 5_000):
            await connection.execute(
                insert(order), [_order(n, customers) for n in range(start, start + 5_000)]
            )
    async with database.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        postgres = connection.dialect.name == "postgresql"
        await autocommit.exec_driver_sql("VACUUM ANALYZE" if postgres else "ANALYZE")


def _order(n: int, customers: int) -> dict[str, Any]:
    return {
        "id": n,
        "customer_id": n * 7 % customers,
        "state": "open" if n % 200 == 0 else "shipped",
        "paid": n % 100 != 0,
        "placed_at": NOON + timedelta(minutes=n * 13 % 20_011),
        "deleted_at": NOON if n % 30 == 0 else None,
        "notes": {"gift": n % 500, "colour": "red"},
        "tags": [f"tag{n % 700}", "all"],
        "text": f"what was said of order {n * 31 % 20_011}",
    }
