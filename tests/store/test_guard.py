"""User SQL: what is refused, what is bounded, what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headwater import limits
from headwater.errors import QueryRefused
from headwater.store.clickhouse import Store
from headwater.store.guard import _TABLE_FUNCTIONS, CATEGORIES, read_functions
from tests.store.made import insert, make_event

REFUSED = [
    "",
    "hello",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE headwater_store.events_rows",
    "DROP VIEW events",
    "TRUNCATE TABLE headwater_store.events_rows",
    "INSERT INTO events SELECT 1",
    "INSERT INTO FUNCTION file('x.csv') SELECT 1",
    "CREATE TABLE t (a Int8) ENGINE = Memory",
    "ALTER TABLE headwater_store.events_rows DELETE WHERE 1",
    "SET readonly = 0",
    "USE system",
    "KILL QUERY WHERE 1",
    "SYSTEM SHUTDOWN",
    "ATTACH TABLE t",
    "GRANT ALL ON *.* TO x",
    "EXPLAIN SELECT 1",
    "SHOW DATABASES",
    "SHOW CREATE TABLE headwater_store.events_rows",
    "EXISTS TABLE events",
    "EXECUTE AS x SELECT 1",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "DESCRIBE file('/etc/passwd')",
    "DESCRIBE url('http://127.0.0.1:1/')",
    "DESCRIBE headwater_store.events_rows",
    "DESCRIBE (SELECT file('/etc/passwd'))",
    "SELECT 1 FORMAT CSV",
    "SELECT 1 INTO OUTFILE '/tmp/headwater-guard'",
    "SELECT 1 INTO OUTFILE '/tmp/headwater-guard' FORMAT CSV",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT file('/etc/passwd')",
    "SELECT FILE('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT 1 WHERE file('/etc/passwd') != ''",
    "SELECT 1 ORDER BY file('/etc/passwd')",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "WITH file('/etc/passwd') AS x SELECT x",
    "SELECT * APPLY (file) FROM events",
    "SELECT * APPLY (x -> file(x)) FROM events",
    "SELECT * REPLACE (file('/etc/passwd') AS name) FROM events",
    "SELECT count() OVER (PARTITION BY file('/etc/passwd')) FROM events",
    "SELECT name FROM events LIMIT (SELECT length(file('/etc/passwd')))",
    "SELECT * FROM file('/etc/passwd')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString', 'a String')",
    "SELECT * FROM default.`/etc/passwd`",
    "SELECT * FROM `/etc/passwd`",
    'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM events JOIN default.`/etc/passwd` AS x ON 1",
    "SELECT * FROM events WHERE name IN default.`/etc/passwd`",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV')",
    "SELECT * FROM s3('http://127.0.0.1:1/a')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM python('import os')",
    "SELECT * FROM merge('headwater_store', '.*')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM view(SELECT file('/etc/passwd'))",
    "SELECT * FROM system.tables",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM headwater_store.loads",
    "WITH system AS (SELECT 1) SELECT * FROM system.one",
    "SELECT 1 IN system.one",
    "SELECT 1 IN (system.one)",
    "SELECT 1 GLOBAL NOT IN system.one",
    "SELECT in(1, system.one), nullIn(1, system.one)",
    "SELECT EXISTS (SELECT 1 FROM system.one)",
    "SELECT (SELECT count() FROM system.one)",
    "SELECT * FROM events UNION ALL SELECT * FROM system.one",
    "SELECT 1 FROM events WHERE 1 = ANY (SELECT dummy FROM system.one)",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(3)",
    "SELECT dictGet('a', 'b', 1)",
    "SELECT dictGetOrDefault('headwater_store.aliased', 'person', tuple(person_id), 1) FROM events",
    "SELECT dictHas('headwater_store.attributed', tuple(person_id)) FROM events",
    "SELECT * FROM dictionary('headwater_store.aliased')",
    "SELECT person FROM headwater_store.aliased",
    "SELECT joinGet('t', 'a', 1)",
    "SELECT hasColumnInTable('system', 'one', 'dummy')",
    "SELECT getSetting('readonly')",
    "SELECT getServerSetting('max_server_memory_usage')",
    "SELECT hostName(), currentUser(), serverUUID()",
    "SELECT currentProfiles()",
    "SELECT catboostEvaluate('/x', 1)",
    "SELECT fileIf('/etc/passwd', 1)",
    "SELECT {a:String}",
    "SELECT * FROM {a:Identifier}",
    "SELECT 1 AS `a\n  Function x`",
    "SELECT * FROM events FORMAT Null; SELECT 1",
    "-- a comment\nDROP VIEW events",
    "SELECT 1 /* ; */ ; DROP VIEW events -- x",
    "SELECT $$a$$; SELECT 1",
]
RUN = [
    "SELECT 1",
    "SELECT 1;",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "SELECT 'it''s; DROP TABLE x -- /*' AS `a b`, $$text$$ # a comment",
    "SELECT count(), countIf(name = 'x'), uniqExact(session_id), sumOrNull(1) FROM events",
    "SELECT account, dialect, count(*) FROM events GROUP BY ALL ORDER BY 3 DESC LIMIT 5",
    "SELECT e.name, properties.trackName, context.ip, e.properties.a.b.:Int64 FROM events AS e",
    "SELECT properties.trackName::String, CAST(properties.n, 'Nullable(Int64)') FROM events",
    "SELECT toJSONString(properties), JSONAllPaths(properties), properties.^a FROM events",
    "SELECT toStartOfHour(received_at) AS hour, count() FROM events WHERE received_at > now() - "
    "INTERVAL 1 DAY GROUP BY hour ORDER BY hour WITH FILL STEP toIntervalHour(1)",
    "SELECT one.1, one.value FROM events ARRAY JOIN identities AS one",
    "SELECT arrayMap(x -> x.value, identities), arrayExists(x -> x LIKE 'a%', issues) FROM events",
    "WITH a AS (SELECT name FROM events) SELECT * FROM a WHERE name IN (SELECT name FROM a)",
    "WITH 'x' AS wanted SELECT count() FROM events WHERE name = wanted",
    "SELECT name, row_number() OVER (PARTITION BY account ORDER BY received_at) FROM events",
    "SELECT name, lagInFrame(name) OVER w FROM events WINDOW w AS (ORDER BY received_at)",
    "SELECT multiIf(kind = 'track', 1, 2), CASE kind WHEN 'track' THEN 1 ELSE 2 END FROM events",
    "SELECT CASE WHEN name ILIKE '%a%' THEN 1 END, name BETWEEN 'a' AND 'b' FROM events",
    "SELECT match(name, '^a'), name REGEXP '^a', name || 'x', -1 * 2 % 3, [1, 2][1] FROM events",
    "SELECT * EXCEPT (context), COLUMNS('name') FROM events LIMIT 1 BY account",
    "SELECT quantile(0.5)(toUnixTimestamp64Micro(received_at)) FROM events HAVING count() >= 0",
    "SELECT events.name FROM events LEFT JOIN rejected USING (account) WHERE events.name IN ('a')",
    "SELECT * FROM accounting",
    "SELECT properties.plan, one.value FROM people ARRAY JOIN identities AS one",
    "SELECT count() FROM sessions WHERE over AND NOT derived",
    "SELECT kept, gone FROM merges WHERE undone_at IS NULL",
    "SELECT value FROM identities WHERE shared AND person_id IN (SELECT person_id FROM people)",
    "SELECT key, value, at FROM profile_history ORDER BY at",
    "SELECT receipt FROM erasures",
    "SELECT number FROM numbers(10)",
    "SELECT * FROM generate_series(1, 3)",
    "SELECT * FROM VALUES('a Int8', 1, 2)",
    "FROM events SELECT name",
    "DESCRIBE events",
    "DESC TABLE rejected",
    "SHOW TABLES",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_is_not_one_select_over_the_views_is_refused(store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused):
        store.query(sql)
    assert not Path("/tmp/headwater-guard").exists()


@pytest.mark.parametrize("sql", RUN)
def test_the_usual_questions_run(store: Store, sql: str) -> None:
    insert(store, make_event())
    assert store.query(sql).columns


def ask(store: Store, sql: str) -> list[list[str]]:
    return [[str(value) for value in row] for row in store.writing().rows(sql)]


def test_every_table_function_but_the_harmless_is_refused(store: Store) -> None:
    names = [row[0] for row in ask(store, "SELECT name FROM system.table_functions")]
    assert len(names) > 80
    for name in names:
        if name.lower() not in _TABLE_FUNCTIONS:
            with pytest.raises(QueryRefused):
                store.query(f"SELECT * FROM {name}('a')")
            with pytest.raises(QueryRefused):
                store.query(f"SELECT 1 IN {name}('a')")


def test_every_function_of_an_unlisted_category_is_refused(store: Store) -> None:
    functions = read_functions(lambda sql, _: ask(store, sql))
    rows = ask(store, "SELECT name, categories FROM system.functions WHERE alias_to = ''")
    let_through = {
        name for name, category in rows if category not in CATEGORIES and functions.allow(name)
    }
    assert let_through <= {
        # each reads nothing but its arguments
        *("bar", "byteSize", "caseWithExpression", "countDigits", "defaultValueOfTypeName"),
        *("finalizeAggregation", "formatReadableDecimalSize", "formatReadableQuantity"),
        *("formatReadableSize", "formatReadableTimeDelta", "getSubcolumn", "identity", "ignore"),
        *("isConstant", "materialize", "neighbor", "parseReadableSize", "parseTimeDelta"),
        *("parseReadableSizeOrNull", "parseReadableSizeOrZero", "rowNumberInAllBlocks"),
        *("rowNumberInBlock", "runningAccumulate", "runningDifference", "toColumnTypeName"),
        *("toTypeName", "transform", "variantElement", "variantType"),
        # and these, of the session
        *("currentDatabase", "version"),
    }


def test_no_allowed_function_shares_its_name_with_a_dangerous_table_function(store: Store) -> None:
    functions = read_functions(lambda sql, _: ask(store, sql))
    names = {row[0].lower() for row in ask(store, "SELECT name FROM system.table_functions")}
    shared = {name for name in names if functions.allow(name)} - _TABLE_FUNCTIONS
    assert shared <= {"format"}


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("SELECT number FROM numbers(1000001)", "1,000,000 rows"),
        ("SELECT groupArray(number) FROM numbers(200000000)", "512 MiB"),
        ("SELECT repeat('x', 100000) FROM numbers(1000)", "64 MiB"),
    ],
)
def test_a_bound_that_is_crossed_is_named(store: Store, sql: str, bound: str) -> None:
    with pytest.raises(QueryRefused, match=re.escape(bound)) as refused:
        store.query(sql)
    assert refused.value.remedy


def test_a_query_ends_after_its_time(store: Store) -> None:
    with pytest.raises(QueryRefused, match=f"more than {limits.query_seconds_max} s"):
        store.query("SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1")


def test_a_long_text_is_refused_before_it_is_parsed(store: Store) -> None:
    with pytest.raises(QueryRefused, match="bytes"):
        store.query("SELECT 1 -- " + "x" * limits.query_text_bytes_max)


def test_deep_nesting_is_refused_and_nothing_falls_over(store: Store) -> None:
    with pytest.raises(QueryRefused):
        store.query("SELECT " + "(" * 20_000 + "1" + ")" * 20_000)
    assert store.query("SELECT 1").rows == [[1]]


def test_wrong_sql_says_what_is_wrong(store: Store) -> None:
    with pytest.raises(QueryRefused, match="no_such_column"):
        store.query("SELECT no_such_column FROM events")
