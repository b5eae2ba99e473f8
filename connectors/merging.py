"""How a batch of rows is merged into a table of PostgreSQL: the highest revision of each key counts.

A batch is COPYed into a temporary table and merged from there, within the batch as well as against what is stored.

Executions lie in partitions by the day they began on, so that day is a part of their key, and a later revision may move it:
by no more than a day, as far as late events are taken (grace_s). Rows of one execution on the same day or on days next to
each other are therefore one thing: the row that comes replaces them, or, if one of them has a higher revision, is dropped.
What lies further apart was an execution id used again, and stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Row = Sequence[Any]
NEXT_TO = timedelta(days=1)


@dataclass(frozen=True)
class Upsert:
    """How rows of one table are merged. All names are our own constants."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    revision: tuple[str, ...]
    """Compared from the left; a row replaces one with the same key unless its revision is lower."""
    touched: str = "updated_at"
    """Set to the time of writing."""
    earliest: str = ""
    """When set: a time of which the least is kept of all rows that were taken."""
    day: str = ""
    """When set: the last column of the key, a date that chooses the partition."""

    def position(self, column: str) -> int:
        """Return where in a row a column stands."""
        return self.columns.index(column)


def ensure_partitions(connection: psycopg.Connection, upsert: Upsert, rows: Sequence[Row]) -> None:
    """Make the partitions that the rows need, outside of the transaction that writes them: others wait for its end."""
    if upsert.day and rows:
        place = upsert.position(upsert.day)
        statement = sql.SQL("SELECT {}(%s)").format(sql.Identifier(f"ensure_{upsert.table}"))
        connection.execute(statement, [list({row[place] for row in rows})])


def merge(connection: psycopg.Connection, upsert: Upsert, rows: Sequence[Row]) -> None:
    """Merge rows into a table, inside the caller's transaction."""
    stage = sql.Identifier("pg_temp", f"batch_{upsert.table}")
    for batch in rounds(upsert, rows) if upsert.day else [rows]:
        _fill(connection, upsert, stage, batch)
        if upsert.day:
            _settle_days(connection, upsert, stage, batch)
        connection.execute(_merge_statement(upsert, stage))


def rounds(upsert: Upsert, rows: Sequence[Row]) -> list[list[Row]]:
    """Return batches to be merged one after the other, each with one row per key apart from its day.

    Nearly always there is one. An execution that moves between days within a batch has a row in each of them, in order:
    the result is the same as if every row had come alone.
    """
    of_key = itemgetter(*(upsert.position(column) for column in upsert.key if column != upsert.day))
    of_revision = itemgetter(*(upsert.position(column) for column in upsert.revision))
    day = upsert.position(upsert.day)
    last: dict[Any, int] = {}
    found: list[dict[Any, Row]] = []
    for row in rows:
        key = of_key(row)
        number = last.get(key, -1)
        if number >= 0 and (before := found[number][key])[day] == row[day]:
            if of_revision(row) >= of_revision(before):
                found[number][key] = row
            continue
        last[key] = number = number + 1
        if number == len(found):
            found.append({})
        found[number][key] = row
    return [list(one.values()) for one in found]


def _fill(connection: psycopg.Connection, upsert: Upsert, stage: sql.Identifier, rows: Sequence[Row]) -> None:
    parts = {"stage": stage, "columns": names(upsert.columns), "table": sql.Identifier(upsert.table)}
    empty = "CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} LIMIT 0"
    connection.execute(sql.SQL(empty).format(**parts))
    connection.execute(sql.SQL("TRUNCATE {stage}").format(**parts))
    with connection.cursor().copy(sql.SQL("COPY {stage} ({columns}) FROM STDIN").format(**parts)) as copy:
        for row in rows:
            copy.write_row(row)


def _settle_days(connection: psycopg.Connection, upsert: Upsert, stage: sql.Identifier, rows: Sequence[Row]) -> None:
    """Remove stored rows of the days next to a staged one that replaces them, and staged ones that lose against such a row."""
    days = [row[upsert.position(upsert.day)] for row in rows]
    bounds = {"first": min(days) - NEXT_TO, "last": max(days) + NEXT_TO}
    neighbours = connection.execute(_neighbours_statement(upsert, stage), bounds).fetchall()
    if not neighbours:
        return
    identity = upsert.key[:-1]
    beaten = {row[2:] for row in neighbours if not row[0]}
    replaced = [(*row[2:], row[1]) for row in neighbours if row[2:] not in beaten]
    texts: dict[str, LiteralString] = dict.fromkeys(identity, "text")
    _delete(connection, stage, texts, list(beaten))
    _delete(connection, sql.Identifier(upsert.table), {**texts, upsert.day: "date"}, replaced)


def _neighbours_statement(upsert: Upsert, stage: sql.Identifier) -> sql.Composed:
    # LATERAL with OFFSET 0: one look into the index per row, whatever the planner thinks of a table it has not analysed.
    # The bounds are for it: partitions that cannot hold such a row are not even planned.
    text = """
        SELECT ({new}) >= ({old}), held.{day}, {identity} FROM {stage} AS new CROSS JOIN LATERAL (
            SELECT * FROM {table} AS held WHERE {same} AND held.{day} BETWEEN new.{day} - 1 AND new.{day} + 1
                AND held.{day} <> new.{day} AND held.{day} BETWEEN %(first)s AND %(last)s OFFSET 0
        ) AS held"""
    identity = upsert.key[:-1]
    return sql.SQL(text).format(
        table=sql.Identifier(upsert.table),
        stage=stage,
        day=sql.Identifier(upsert.day),
        identity=join("new.{}", identity),
        same=sql.SQL(" AND ").join(sql.SQL("held.{0} = new.{0}").format(sql.Identifier(c)) for c in identity),
        new=join("new.{}", upsert.revision),
        old=join("held.{}", upsert.revision),
    )


def _delete(connection: psycopg.Connection, table: sql.Identifier, types: dict[str, LiteralString], rows: Sequence[Row]) -> None:
    """Delete the rows with these keys (a type per column), all at once: triggers are by statement."""
    if rows:
        key = list(types)
        text = "DELETE FROM {table} AS held USING unnest({arrays}) AS gone ({key}) WHERE ({held}) = ({gone})"
        statement = sql.SQL(text).format(
            table=table,
            arrays=sql.SQL(", ").join(sql.SQL("%s::" + kind + "[]") for kind in types.values()),
            key=names(key),
            held=join("held.{}", key),
            gone=join("gone.{}", key),
        )
        connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])


def _merge_statement(upsert: Upsert, stage: sql.Identifier) -> sql.Composed:
    # DISTINCT ON takes the highest revision of each key; its order by key also keeps concurrent writers from
    # deadlocking.
    text = """
        INSERT INTO {table} AS held ({columns})
        SELECT DISTINCT ON ({key}) {values} FROM {stage} ORDER BY {key}, {newest_first}
        ON CONFLICT ({key}) DO UPDATE SET {assignments}, {touched} = now()
        WHERE ({new}) >= ({old})"""
    return sql.SQL(text).format(
        table=sql.Identifier(upsert.table),
        columns=names(upsert.columns),
        values=sql.SQL(", ").join(_value(upsert, column) for column in upsert.columns),
        key=names(upsert.key),
        stage=stage,
        newest_first=join("{} DESC", upsert.revision),
        assignments=sql.SQL(", ").join(_assignment(upsert, c) for c in upsert.columns if c not in upsert.key),
        touched=sql.Identifier(upsert.touched),
        new=join("excluded.{}", upsert.revision),
        old=join("held.{}", upsert.revision),
    )


def _value(upsert: Upsert, column: str) -> sql.Composable:
    if column != upsert.earliest:
        return sql.Identifier(column)
    return sql.SQL("min({}) OVER (PARTITION BY {})").format(sql.Identifier(column), names(upsert.key))


def _assignment(upsert: Upsert, column: str) -> sql.Composed:
    if column != upsert.earliest:
        return sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column))
    return sql.SQL("{0} = least(held.{0}, excluded.{0})").format(sql.Identifier(column))


def names(columns: Sequence[str]) -> sql.Composed:
    """Return the columns, separated by commas."""
    return join("{}", columns)


def join(pattern: str, columns: Sequence[str]) -> sql.Composed:
    """Return the pattern filled with each column's name, separated by commas."""
    count = pattern.count("{}")
    template: Any = pattern
    return sql.SQL(", ").join(sql.SQL(template).format(*[sql.Identifier(name)] * count) for name in columns)
