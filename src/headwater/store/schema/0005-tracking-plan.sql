-- What the tracking plan found, and which types properties have. Every statement may run again.

-- How often events broke their account's plan: absolute counts of one loaded range (writer, last),
-- written before the range's row of `loads`, and again, with a higher version, by a replay. What
-- lies beyond a writer's watermark was cut short and goes at the next start. Rows that no replay can
-- reach any more are folded, `folded` = 1, and such a row stands for all of its writer up to `last`.
CREATE TABLE IF NOT EXISTS headwater_store.violation_rows
(
    account LowCardinality(String),
    dialect LowCardinality(String),
    name String,
    mode LowCardinality(String),
    rule String,
    day Date,
    writer UInt16,
    last UInt64,
    folded UInt8,
    events UInt64,
    first_seen DateTime64(6, 'UTC'),
    last_seen DateTime64(6, 'UTC'),
    request_id UUID,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (account, day, dialect, name, mode, rule, folded, writer, last)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1;

CREATE OR REPLACE VIEW headwater.plan_violations AS
SELECT
    account,
    dialect,
    name,
    mode,
    rule,
    day,
    sum(events_) AS events,
    min(first_) AS first_seen,
    max(last_) AS last_seen,
    argMax(request_, last_) AS request_id
FROM
(
    SELECT
        account, dialect, name, mode, rule, day, events AS events_, first_seen AS first_,
        last_seen AS last_, request_id AS request_, folded, last AS upto, folds.bound AS bound
    FROM
    (
        SELECT * FROM headwater_store.violation_rows FINAL
        WHERE events > 0
    ) AS counted
    LEFT JOIN
    (
        SELECT writer, max(last) AS bound FROM headwater_store.violation_rows WHERE folded = 1
        GROUP BY writer
    ) AS folds ON counted.writer = folds.writer
)
WHERE if(folded = 1, upto = bound, upto > bound)
GROUP BY account, dialect, name, mode, rule, day;

-- Which types properties have, from samples: one window of received_at after another. A window's
-- rows come in one insert together with a row of no account, whose last_seen is the window's end: so
-- a window counts once, whatever is cut short. No values are kept. The row without a path counts
-- the events themselves.
CREATE TABLE IF NOT EXISTS headwater_store.property_type_rows
(
    account LowCardinality(String),
    dialect LowCardinality(String),
    name String,
    path String,
    type LowCardinality(String),
    day Date,
    first_seen SimpleAggregateFunction(min, DateTime64(6, 'UTC')),
    last_seen SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    seen SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
ORDER BY (account, dialect, name, path, type, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1;

CREATE OR REPLACE VIEW headwater.property_types AS
SELECT
    account,
    dialect,
    name,
    path,
    type,
    day,
    min(first_) AS first_seen,
    max(last_) AS last_seen,
    sum(seen_) AS seen
FROM
(
    SELECT
        account, dialect, name, path, type, day,
        CAST(first_seen, 'DateTime64(6, \'UTC\')') AS first_,
        CAST(last_seen, 'DateTime64(6, \'UTC\')') AS last_,
        CAST(seen, 'UInt64') AS seen_
    FROM headwater_store.property_type_rows
    WHERE account != ''
)
GROUP BY account, dialect, name, path, type, day;
