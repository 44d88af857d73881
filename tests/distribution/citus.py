"""An extension named citus, with the signatures of Citus 12 and those of its refusals that the order of calls meets.

It stands for Citus where that cannot be had: real statements are really executed by a real server, and written down.
It divides no rows.  Its rules are those of Citus's documentation and of its `foreign_constraint.c`.
"""

from pathlib import Path

import asyncpg

CONTROL = """
default_version = '12.1'
relocatable = false
schema = 'pg_catalog'
trusted = true
"""

SCRIPT = r"""
CREATE SCHEMA citus;
CREATE TYPE citus.distribution_type AS ENUM ('hash', 'range', 'append');
CREATE TABLE citus.calls (number serial, call text);
CREATE TABLE citus.placed (relation oid PRIMARY KEY, kind text, by text, beside text);
CREATE VIEW citus.citus_tables AS
    SELECT relation::regclass AS table_name, kind AS citus_table_type, by AS distribution_column, beside
    FROM citus.placed JOIN pg_class ON pg_class.oid = relation;
ALTER VIEW citus.citus_tables SET SCHEMA pg_catalog;
GRANT SELECT ON citus_tables TO public;

CREATE FUNCTION citus.note(call text) RETURNS void LANGUAGE sql AS 'INSERT INTO citus.calls (call) VALUES (call)';

CREATE FUNCTION citus.check_foreign_keys(here regclass, kind text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE there record;
BEGIN
    FOR there IN
        SELECT confrelid::regclass AS name, placed.kind
        FROM pg_constraint LEFT JOIN citus_tables AS t ON t.table_name = confrelid
        LEFT JOIN citus.placed ON placed.relation = confrelid
        WHERE contype = 'f' AND conrelid = here AND confrelid <> here
    LOOP
        IF there.kind IS NULL AND kind = 'distributed' THEN
            RAISE EXCEPTION 'cannot create foreign key constraint' USING ERRCODE = '42P16',
                DETAIL = 'Referenced table must be a distributed table or a reference table.';
        ELSIF there.kind = 'distributed' AND kind = 'reference' THEN
            RAISE EXCEPTION 'foreign keys from reference tables to distributed tables are not supported'
                USING ERRCODE = '0A000';
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION create_distributed_table(
    table_name regclass, distribution_column text, distribution_type citus.distribution_type DEFAULT 'hash',
    colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE place int2 = (
    SELECT attnum FROM pg_attribute WHERE attrelid = table_name AND attname = distribution_column
);
BEGIN
    IF place IS NULL THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', distribution_column, table_name;
    ELSIF EXISTS (SELECT FROM citus.placed WHERE relation = table_name) THEN
        RAISE EXCEPTION 'table "%" is already distributed', table_name;
    ELSIF EXISTS (
        SELECT FROM pg_index WHERE indrelid = table_name AND indisunique AND NOT place = ANY (indkey::int2[])
    ) THEN
        RAISE EXCEPTION 'cannot create constraint on "%"', table_name USING ERRCODE = '0A000',
            DETAIL = 'Distributed relations cannot have UNIQUE constraints that do not include the partition column.';
    ELSIF colocate_with NOT IN ('default', 'none') THEN
        PERFORM FROM citus.placed WHERE relation = colocate_with::regclass;
        IF NOT FOUND THEN RAISE EXCEPTION 'relation % is not distributed', colocate_with; END IF;
    END IF;
    PERFORM citus.check_foreign_keys(table_name, 'distributed');
    INSERT INTO citus.placed VALUES (table_name, 'distributed', distribution_column, colocate_with);
    PERFORM citus.note(format('create_distributed_table %s by %s, %s', table_name, distribution_column, colocate_with));
END $$;

CREATE FUNCTION create_reference_table(table_name regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM citus.check_foreign_keys(table_name, 'reference');
    INSERT INTO citus.placed VALUES (table_name, 'reference', '<none>');
    PERFORM citus.note(format('create_reference_table %s', table_name));
END $$;

CREATE FUNCTION undistribute_table(table_name regclass, cascade_via_foreign_keys boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE joined oid[] = ARRAY[table_name];
BEGIN
    IF NOT EXISTS (SELECT FROM citus.placed WHERE relation = table_name) THEN
        RAISE EXCEPTION 'cannot undistribute table because the table is not distributed';
    END IF;
    IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND table_name IN (conrelid, confrelid)) THEN
        IF NOT cascade_via_foreign_keys THEN
            RAISE EXCEPTION 'cannot complete operation because table % has a foreign key', table_name;
        END IF;
        LOOP
            SELECT array_agg(DISTINCT other) INTO joined FROM (
                SELECT unnest(joined) AS other UNION
                SELECT unnest(ARRAY[conrelid, confrelid]) FROM pg_constraint
                WHERE contype = 'f' AND (conrelid = ANY (joined) OR confrelid = ANY (joined))
            ) AS found;
            EXIT WHEN NOT EXISTS (
                SELECT FROM pg_constraint WHERE contype = 'f'
                AND (conrelid = ANY (joined)) <> (confrelid = ANY (joined))
            );
        END LOOP;
    END IF;
    DELETE FROM citus.placed WHERE relation = ANY (joined);
    PERFORM citus.note(format('undistribute_table %s%s', table_name,
        CASE WHEN cascade_via_foreign_keys THEN ' and what it is joined to' ELSE '' END));
END $$;
"""


async def create_extension(url: str, folder: Path) -> None:
    """Make the database one that has the extension; the server's user reads its files from the folder."""
    files = folder / "extension"
    files.mkdir()
    (files / "citus.control").write_text(CONTROL)
    (files / "citus--12.1.sql").write_text(SCRIPT)
    for each in (folder, files):
        each.chmod(0o755)
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(f"SET extension_control_path = '{folder}:$system'")
        await connection.execute("DROP EXTENSION IF EXISTS citus CASCADE; CREATE EXTENSION citus")
    finally:
        await connection.close()


async def drop_extension(url: str) -> None:
    """Take it away again: the tests share one database."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            "DROP EXTENSION IF EXISTS citus CASCADE; DROP SCHEMA IF EXISTS citus CASCADE"
        )
    finally:
        await connection.close()
