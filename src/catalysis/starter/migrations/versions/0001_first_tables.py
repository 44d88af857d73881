"""first tables

Revision ID: 0001
Revises:
Create Date: 2026-11-22
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

UNMARKED: dict[str, Any] = {
    "postgresql_where": sa.text("deleted_at IS NULL"),
    "sqlite_where": sa.text("deleted_at IS NULL"),
}


def model_columns() -> list[sa.Column[Any]]:
    """The columns that every model has."""
    now = op.by_dialect(postgresql="CURRENT_TIMESTAMP", sqlite="(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
    ]


def upgrade() -> None:
    """Upgrade schema."""
    op.create_enum("standing", ["member", "lead"])
    op.create_enum("taskstatus", ["todo", "doing", "done"])
    create_categories()
    create_roles()
    create_users()
    create_groups()
    create_tasks()


def create_categories() -> None:
    op.create_table(
        "category",
        *model_columns(),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("color", sa.String(length=7), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_category")),
    )
    op.create_index("uq_category_name", "category", ["name"], unique=True, **UNMARKED)


def create_roles() -> None:
    op.create_table(
        "permission",
        *model_columns(),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_permission")),
        sa.UniqueConstraint("name", name=op.f("uq_permission_name")),
    )
    op.create_table(
        "role",
        *model_columns(),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role")),
        sa.UniqueConstraint("name", name=op.f("uq_role_name")),
    )
    op.create_table(
        "rolepermission",
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.Column("permission_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["permission_id"],
            ["permission.id"],
            name=op.f("fk_rolepermission_permission_id_permission"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["role.id"], name=op.f("fk_rolepermission_role_id_role"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("role_id", "permission_id", name=op.f("pk_rolepermission")),
    )
    op.create_index(op.f("ix_rolepermission_permission_id"), "rolepermission", ["permission_id"])


def create_users() -> None:
    op.create_table(
        "user",
        *model_columns(),
        sa.Column("username", sa.String(length=50), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("full_name", sa.String(length=200), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("token_generation", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("role_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["role_id"], ["role.id"], name=op.f("fk_user_role_id_role"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
    )
    op.create_index(op.f("ix_user_role_id"), "user", ["role_id"])
    op.create_index("uq_user_email", "user", ["email"], unique=True, **UNMARKED)
    op.create_index("uq_user_username", "user", ["username"], unique=True, **UNMARKED)


def create_groups() -> None:
    op.create_table(
        "group",
        *model_columns(),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(length=5000), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_group")),
    )
    op.create_index("uq_group_name", "group", ["name"], unique=True, **UNMARKED)
    op.create_table(
        "membership",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("standing", sa.Enum("member", "lead", name="standing", create_type=False), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["group.id"], name=op.f("fk_membership_group_id_group"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_membership_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_membership")),
    )
    op.create_index(op.f("ix_membership_user_id"), "membership", ["user_id"])


def create_tasks() -> None:
    op.create_table(
        "task",
        *model_columns(),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("description", sa.String(length=5000), nullable=False),
        sa.Column(
            "status", sa.Enum("todo", "doing", "done", name="taskstatus", create_type=False), nullable=False
        ),
        sa.Column("completed", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("category_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("completed = (status = 'done')", name=op.f("ck_task_completed_is_done")),
        sa.CheckConstraint("priority BETWEEN 1 AND 5", name=op.f("ck_task_priority")),
        sa.ForeignKeyConstraint(
            ["category_id"], ["category.id"], name=op.f("fk_task_category_id_category"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_task_user_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
    )
    op.create_index("ix_task_category_id_completed", "task", ["category_id", "completed"])
    op.create_index(op.f("ix_task_completed"), "task", ["completed"])
    op.create_index("ix_task_created_at", "task", ["created_at"])
    op.create_index(
        "ix_task_open_by_due",
        "task",
        ["user_id", "due"],
        postgresql_where=sa.text("NOT completed AND deleted_at IS NULL"),
        sqlite_where=sa.text("completed = 0 AND deleted_at IS NULL"),
    )
    op.create_index("ix_task_user_id_created_at", "task", ["user_id", "created_at"])


def downgrade() -> None:
    """Downgrade schema."""
    for table in ("task", "membership", "group", "user", "rolepermission", "role", "permission", "category"):
        op.drop_table(table)
    op.drop_enum("taskstatus")
    op.drop_enum("standing")
