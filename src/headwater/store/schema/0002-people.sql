-- People: who did it, which sessions, what merged. Every statement may run again.
--
-- A row says who did it as it was known when it was loaded (`principal`). What is learned later
-- stands beside the rows, in `attributions` by what decides a row (`subject`), `aliases` by the
-- principal and `resessions` by the person, and is looked up when a row is read: dictionaries, which
-- cost nothing where no person is asked for. From time to time it is folded into the rows. All
-- ids are UUIDs, and zero is nobody.

-- Dictionaries are loaded when they are first asked, and again when their table has been written.

CREATE TABLE IF NOT EXISTS headwater_store.attributions
(
    key UUID,
    bounds Array(String),
    principals Array(UUID),
    version UInt64,
    written_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS headwater_store.aliases
(
    principal UUID,
    person UUID,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY principal
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS headwater_store.resessions
(
    account String,
    dialect String,
    scope String,
    person UUID,
    bounds Array(Int64),
    sessions Array(UUID),
    version UInt64,
    written_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (account, dialect, scope, person)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE DICTIONARY IF NOT EXISTS headwater_store.attributed
(
    key UUID,
    bounds Array(String),
    principals Array(UUID)
)
PRIMARY KEY key
SOURCE(CLICKHOUSE(QUERY 'SELECT key, bounds, principals FROM headwater_store.attributions FINAL'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(0);

CREATE DICTIONARY IF NOT EXISTS headwater_store.aliased
(
    principal UUID,
    person UUID
)
PRIMARY KEY principal
SOURCE(CLICKHOUSE(QUERY
    'SELECT principal, person FROM headwater_store.aliases FINAL WHERE principal != person'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(0);

CREATE DICTIONARY IF NOT EXISTS headwater_store.resessioned
(
    account String,
    dialect String,
    scope String,
    person UUID,
    bounds Array(Int64),
    sessions Array(UUID)
)
PRIMARY KEY account, dialect, scope, person
SOURCE(CLICKHOUSE(QUERY
    'SELECT account, dialect, scope, person, bounds, sessions FROM headwater_store.resessions FINAL'))
LAYOUT(COMPLEX_KEY_HASHED())
LIFETIME(0);

-- Rows of before have no keys: they are nobody's until they are replayed. The filters find the
-- events of some keys among all; with one miss in a thousand, 40 keys still leave 24 of 25 granules
-- unread.
ALTER TABLE headwater_store.events_rows
    ADD COLUMN IF NOT EXISTS ordered_at DateTime64(6, 'UTC') DEFAULT occurred_at
        CODEC(Delta, ZSTD(1)) AFTER received_at,
    ADD COLUMN IF NOT EXISTS keys Array(UUID)
        DEFAULT arrayResize(CAST([], 'Array(UUID)'), length(identities)) AFTER identities,
    ADD COLUMN IF NOT EXISTS subject UUID AFTER keys,
    ADD COLUMN IF NOT EXISTS principal UUID AFTER subject,
    ADD INDEX IF NOT EXISTS by_key keys TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_subject subject TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_principal principal TYPE bloom_filter(0.001) GRANULARITY 1;

-- What a row says now. `event_order` is resolve.keys.order_bytes, byte for byte. (An `if` over
-- `owner` would compute it three times: the branches of an `if` share nothing.)
ALTER TABLE headwater_store.events_rows
    ADD COLUMN IF NOT EXISTS event_order String ALIAS concat(
        reverse(reinterpretAsFixedString(
            bitXor(toUnixTimestamp64Micro(ordered_at), toInt64('-9223372036854775808')))),
        reverse(reinterpretAsFixedString(toUnixTimestamp64Micro(received_at))),
        UUIDToNum(request_id),
        reverse(reinterpretAsFixedString(idx))),
    ADD COLUMN IF NOT EXISTS owner UUID ALIAS if(
        dictHas('headwater_store.attributed', tuple(subject)),
        arrayElement(
            dictGet('headwater_store.attributed', 'principals', tuple(subject)),
            arrayLastIndex(
                bound -> bound <= event_order,
                dictGet('headwater_store.attributed', 'bounds', tuple(subject)))),
        principal),
    ADD COLUMN IF NOT EXISTS person UUID
        ALIAS dictGetOrDefault('headwater_store.aliased', 'person', tuple(owner), owner),
    ADD COLUMN IF NOT EXISTS derived Bool ALIAS dialect IN ('vaix', 'orbee', 'gamooga'),
    ADD COLUMN IF NOT EXISTS session_now Nullable(UUID) ALIAS multiIf(
        NOT derived, session_id,
        person = toUUID('00000000-0000-0000-0000-000000000000'), NULL,
        dictHas('headwater_store.resessioned', (account, dialect, scope, person)),
        coalesce(
            nullIf(
                arrayElement(
                    dictGet('headwater_store.resessioned', 'sessions',
                        (account, dialect, scope, person)),
                    arrayLastIndex(
                        bound -> bound <= toUnixTimestamp64Micro(ordered_at),
                        dictGet('headwater_store.resessioned', 'bounds',
                            (account, dialect, scope, person)))),
                toUUID('00000000-0000-0000-0000-000000000000')),
            session_id),
        session_id);

-- The way in, with the new columns. The digest leaves out what is not of the row alone: who did it
-- and the derived session, so that a replay which changes nothing rewrites nothing.
DROP VIEW IF EXISTS headwater_store.events_spread SYNC;

DROP TABLE IF EXISTS headwater_store.events_in SYNC;

CREATE TABLE headwater_store.events_in
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
    ordered_at Array(DateTime64(6, 'UTC')),
    session_id Array(Nullable(UUID)),
    session Array(String),
    identities Array(Array(Tuple(
        namespace LowCardinality(String),
        scope LowCardinality(String),
        value String,
        strength LowCardinality(String),
        denied Bool))),
    keys Array(Array(UUID)),
    subject Array(UUID),
    principal Array(UUID),
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

CREATE MATERIALIZED VIEW headwater_store.events_spread
TO headwater_store.events_rows AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, ordered_at,
    session_id, session, identities, keys, subject, principal,
    CAST(properties_text, 'JSON') AS properties, context, profile_set, profile_unset, raw, issues,
    transport, writer, batch, request, idx,
    cityHash64(context_hash, properties_text, event_id, request_id, account, dialect, scope, kind,
        name, occurred_at, received_at, ordered_at,
        if(dialect IN ('vaix', 'orbee', 'gamooga'), '', ifNull(toString(session_id), '')), session,
        identities, keys, subject, profile_set, profile_unset, raw, issues, transport) AS digest
FROM
(
    SELECT
        * EXCEPT (context_text),
        CAST(context_text, 'JSON') AS context,
        cityHash64(context_text) AS context_hash
    FROM headwater_store.events_in
)
ARRAY JOIN
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, ordered_at,
    session_id, session, identities, keys, subject, principal, properties_text, profile_set,
    profile_unset, raw, issues, transport, writer, batch, request, idx;

DROP VIEW IF EXISTS headwater_store.events_staged_spread SYNC;

DROP TABLE IF EXISTS headwater_store.events_staged_in SYNC;

DROP TABLE IF EXISTS headwater_store.events_staged SYNC;

CREATE TABLE headwater_store.events_staged AS headwater_store.events_rows
ENGINE = MergeTree
ORDER BY (writer, batch, request, idx);

CREATE TABLE headwater_store.events_staged_in AS headwater_store.events_in
ENGINE = Null;

CREATE MATERIALIZED VIEW headwater_store.events_staged_spread
TO headwater_store.events_staged AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, ordered_at,
    session_id, session, identities, keys, subject, principal,
    CAST(properties_text, 'JSON') AS properties, context, profile_set, profile_unset, raw, issues,
    transport, writer, batch, request, idx,
    cityHash64(context_hash, properties_text, event_id, request_id, account, dialect, scope, kind,
        name, occurred_at, received_at, ordered_at,
        if(dialect IN ('vaix', 'orbee', 'gamooga'), '', ifNull(toString(session_id), '')), session,
        identities, keys, subject, profile_set, profile_unset, raw, issues, transport) AS digest
FROM
(
    SELECT
        * EXCEPT (context_text),
        CAST(context_text, 'JSON') AS context,
        cityHash64(context_text) AS context_hash
    FROM headwater_store.events_staged_in
)
ARRAY JOIN
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at, ordered_at,
    session_id, session, identities, keys, subject, principal, properties_text, profile_set,
    profile_unset, raw, issues, transport, writer, batch, request, idx;

-- Which people became one, by the pair of keys that an event asserted together.
CREATE TABLE IF NOT EXISTS headwater_store.merge_rows
(
    account LowCardinality(String),
    merge_id UUID,
    at DateTime64(6, 'UTC'),
    kept UUID,
    gone UUID,
    cause UUID,
    first UUID,
    second UUID,
    undone_at Nullable(DateTime64(6, 'UTC')),
    gone_away UInt8,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (account, merge_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Signs of life of sessions that are no events: the last heartbeat and the last clean close.
CREATE TABLE IF NOT EXISTS headwater_store.pulses
(
    account LowCardinality(String),
    session_id UUID,
    closed UInt8,
    at SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (account, session_id, closed)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS headwater_store.erasures_rows
(
    account LowCardinality(String),
    person_id UUID,
    erased_at DateTime64(6, 'UTC'),
    receipt String
)
ENGINE = ReplacingMergeTree
ORDER BY (account, person_id, erased_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The places of the rows that are being erased now.
CREATE TABLE IF NOT EXISTS headwater_store.erasing
(
    writer UInt16,
    batch UInt64,
    request UInt32,
    idx UInt32
)
ENGINE = MergeTree
ORDER BY (writer, batch, request, idx)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
