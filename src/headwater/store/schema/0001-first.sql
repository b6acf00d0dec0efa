-- The store's first schema. Every statement may run again: a start that was cut short repeats it.
--
-- Two databases. `headwater` holds what a user sees, views only, and is the database in which user
-- SQL runs; `headwater_store` holds the tables. Rows carry their place in the journal (writer,
-- batch, request, idx), by which they are reconciled after a crash and compared in a replay.

CREATE DATABASE IF NOT EXISTS headwater_store;

CREATE DATABASE IF NOT EXISTS headwater;

-- Sorted for the usual question, one account's events of some days by name: the day is a key
-- column, so that a range of received_at prunes, and equal names lie together.
-- `place` finds the rows of a journal range; `occurred` prunes by the client's time.
-- Parts are fsynced before an insert returns: the loads row that follows must not outlive them.
CREATE TABLE IF NOT EXISTS headwater_store.events_rows
(
    event_id UUID,
    request_id UUID,
    account LowCardinality(String),
    dialect LowCardinality(String),
    scope LowCardinality(String),
    kind LowCardinality(String),
    name LowCardinality(String),
    occurred_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    session_id Nullable(UUID),
    session String,
    identities Array(Tuple(
        namespace LowCardinality(String),
        scope LowCardinality(String),
        value String,
        strength LowCardinality(String),
        denied Bool)),
    properties JSON,
    context JSON,
    profile_set String,
    profile_unset Array(String),
    raw String,
    issues Array(String),
    transport LowCardinality(String),
    writer UInt16,
    batch UInt64 CODEC(Delta, ZSTD(1)),
    request UInt32,
    idx UInt32,
    digest UInt64,
    INDEX place (writer, batch) TYPE minmax GRANULARITY 1,
    INDEX occurred occurred_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account, dialect, toDate(received_at), name, received_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 100;

-- The way in. One row is one context and all events of an insert that have it: parsing JSON costs
-- 1 us a key, and the events of one batch share their contexts, so each text is parsed once
-- (measured with 5 keys of properties and 6 of context, on one core: 14.6 us an event plain, 8.4 us
-- with 10 events or more a context).
CREATE TABLE IF NOT EXISTS headwater_store.events_in
(
    context_text String,
    event_id Array(UUID),
    request_id Array(UUID),
    account Array(LowCardinality(String)),
    dialect Array(LowCardinality(String)),
    scope Array(LowCardinality(String)),
    kind Array(LowCardinality(String)),
    name Array(LowCardinality(String)),
    occurred_at Array(DateTime64(6, 'UTC')),
    received_at Array(DateTime64(6, 'UTC')),
    session_id Array(Nullable(UUID)),
    session Array(String),
    identities Array(Array(Tuple(
        namespace LowCardinality(String),
        scope LowCardinality(String),
        value String,
        strength LowCardinality(String),
        denied Bool))),
    properties_text Array(String),
    profile_set Array(String),
    profile_unset Array(Array(String)),
    raw Array(String),
    issues Array(Array(String)),
    transport Array(LowCardinality(String)),
    writer Array(UInt16),
    batch Array(UInt64),
    request Array(UInt32),
    idx Array(UInt32)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS headwater_store.events_spread
TO headwater_store.events_rows AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, session_id,
    session, identities, CAST(properties_text, 'JSON') AS properties, context, profile_set,
    profile_unset, raw, issues, transport, writer, batch, request, idx,
    cityHash64(context_hash, properties_text, event_id, request_id, account, dialect, scope, kind,
        name, occurred_at, received_at, ifNull(toString(session_id), ''), session, identities, profile_set,
        profile_unset, raw, issues, transport) AS digest
FROM
(
    SELECT
        * EXCEPT (context_text),
        CAST(context_text, 'JSON') AS context,
        cityHash64(context_text) AS context_hash
    FROM headwater_store.events_in
)
ARRAY JOIN
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, session_id,
    session, identities, properties_text, profile_set, profile_unset, raw, issues, transport,
    writer, batch, request, idx;

-- Where a replay puts what the decoders say now, to be compared with what is stored: by place and
-- digest. Empty between replays.
CREATE TABLE IF NOT EXISTS headwater_store.events_staged AS headwater_store.events_rows
ENGINE = MergeTree
ORDER BY (writer, batch, request, idx);

CREATE TABLE IF NOT EXISTS headwater_store.events_staged_in AS headwater_store.events_in
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS headwater_store.events_staged_spread
TO headwater_store.events_staged AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, session_id,
    session, identities, CAST(properties_text, 'JSON') AS properties, context, profile_set,
    profile_unset, raw, issues, transport, writer, batch, request, idx,
    cityHash64(context_hash, properties_text, event_id, request_id, account, dialect, scope, kind,
        name, occurred_at, received_at, ifNull(toString(session_id), ''), session, identities, profile_set,
        profile_unset, raw, issues, transport) AS digest
FROM
(
    SELECT
        * EXCEPT (context_text),
        CAST(context_text, 'JSON') AS context,
        cityHash64(context_text) AS context_hash
    FROM headwater_store.events_staged_in
)
ARRAY JOIN
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, session_id,
    session, identities, properties_text, profile_set, profile_unset, raw, issues, transport,
    writer, batch, request, idx;

-- What could not become an event. `request` is the readable text of the request, or of the piece of
-- it that was refused.
CREATE TABLE IF NOT EXISTS headwater_store.rejected_rows
(
    request_id UUID,
    account LowCardinality(String),
    dialect LowCardinality(String),
    scope LowCardinality(String),
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    detail String,
    request_text String,
    transport LowCardinality(String),
    item UInt32,
    writer UInt16,
    batch UInt64 CODEC(Delta, ZSTD(1)),
    request UInt32,
    idx UInt32,
    digest UInt64 MATERIALIZED cityHash64(request_id, account, dialect, scope, received_at, reason,
        detail, request_text, transport, item),
    INDEX place (writer, batch) TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (account, dialect, received_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 100;

CREATE TABLE IF NOT EXISTS headwater_store.rejected_staged AS headwater_store.rejected_rows
ENGINE = MergeTree
ORDER BY (writer, batch, request, idx);

-- The books and the watermark in one: a row says that the batches (after, last] of a writer are
-- loaded, and what became of one account's and dialect's events in them. Inserted after the rows it
-- counts, so that max(last) is never ahead of them. Rows with no account cover what was skipped as
-- damaged. A replay writes the same key again with a higher version: the counts are absolute.
-- `step` orders loads, so that a count of what is in flight can name the loads that it belongs to.
-- Rows that no replay can reach any more are folded into one, `folded` = 1, which stands for all of
-- its writer up to `last`.
CREATE TABLE IF NOT EXISTS headwater_store.loads
(
    writer UInt16,
    after UInt64,
    last UInt64,
    batches UInt32,
    account LowCardinality(String),
    dialect LowCardinality(String),
    received UInt64,
    stored UInt64,
    duplicate UInt64,
    rejected UInt64,
    step UInt64,
    folded UInt8,
    version UInt64,
    loaded_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (folded, writer, last, account, dialect)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 100;

-- The stretch that a replay is rewriting now; what stands here at a start was cut short.
CREATE TABLE IF NOT EXISTS headwater_store.replays
(
    writer UInt16,
    after UInt64,
    last UInt64
)
ENGINE = MergeTree
ORDER BY (writer, last)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What is journaled and not yet loaded, as of a step; each row is a whole snapshot, and the newest
-- counts. In memory: after a start there is none until somebody asks for the books.
CREATE TABLE IF NOT EXISTS headwater_store.in_flight
(
    snapshot UInt64,
    step UInt64,
    pending Array(Tuple(account String, dialect String, events UInt64))
)
ENGINE = Memory
SETTINGS min_rows_to_keep = 1, max_rows_to_keep = 4;

CREATE OR REPLACE VIEW headwater.events AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at,
    CAST(NULL, 'Nullable(UUID)') AS person_id,
    session_id,
    CAST(arrayMap(one -> (one.namespace, one.value), identities),
        'Array(Tuple(namespace String, value String))') AS identities,
    properties, context, issues, transport
FROM headwater_store.events_rows;

CREATE OR REPLACE VIEW headwater.rejected AS
SELECT
    request_id, account, dialect, received_at, reason, detail, request_text AS request
FROM headwater_store.rejected_rows;

-- received = stored + duplicate + rejected + in_flight, as of the newest snapshot: loads after its
-- step are still in flight in it.
CREATE OR REPLACE VIEW headwater.accounting AS
WITH
    (
        SELECT (argMax(step, snapshot), argMax(pending, snapshot), count())
        FROM headwater_store.in_flight
    ) AS newest
SELECT
    account,
    dialect,
    sum(loaded_) + sum(in_flight_) AS received,
    sum(stored_) AS stored,
    sum(duplicate_) AS duplicate,
    sum(rejected_) AS rejected,
    sum(in_flight_) AS in_flight
FROM
(
    SELECT
        account, dialect, received AS loaded_, stored AS stored_, duplicate AS duplicate_,
        rejected AS rejected_, toUInt64(0) AS in_flight_
    FROM headwater_store.loads FINAL
    WHERE account != '' AND (newest.3 = 0 OR step <= newest.1)
        AND (folded, writer, last) NOT IN
        (
            SELECT loads.folded, loads.writer, loads.last
            FROM headwater_store.loads AS loads
            INNER JOIN
            (
                SELECT writer, max(last) AS bound FROM headwater_store.loads WHERE folded = 1
                GROUP BY writer
            ) AS folds ON loads.writer = folds.writer
            WHERE loads.last <= folds.bound AND NOT (loads.folded = 1 AND loads.last = folds.bound)
        )
    UNION ALL
    SELECT
        pending_.1 AS account, pending_.2 AS dialect, 0, 0, 0, 0, pending_.3
    FROM (SELECT arrayJoin(newest.2) AS pending_)
)
GROUP BY account, dialect
ORDER BY account, dialect;
