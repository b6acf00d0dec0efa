-- Pages that answer within a second over ten million events: what a row says now, the cheap way.
-- Every statement may run again. What was measured: docs/decisions/0011-pages-at-ten-million.md.
--
-- All but a few rows say what they were stored with. `person` and `session_now` of before looked up
-- every row in each dictionary, and read the six columns that only an override needs: at 10 million
-- rows 1.8 s and 3.9 s of processor time, against 0.8 s and 0.9 s.

-- The ids that some override is about, by 64 of their bits. Two ids that share those only cost the
-- long way. A plain key of 64 bits is found in half the time of a key of 16 bytes.
CREATE DICTIONARY IF NOT EXISTS headwater_store.touched
(
    id UInt64,
    one UInt8
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(QUERY
    'SELECT reinterpretAsUInt64(key) AS id, 1 AS one FROM headwater_store.attributions
    UNION ALL SELECT reinterpretAsUInt64(principal), 1 FROM headwater_store.aliases
    UNION ALL SELECT reinterpretAsUInt64(person), 1 FROM headwater_store.resessions'))
LAYOUT(HASHED())
LIFETIME(0);

-- Whether there are overrides that need a row's place in time. Its one row is asked for with a
-- constant, so it is known before a query runs, and the columns of the branch not taken are not
-- read.
CREATE DICTIONARY IF NOT EXISTS headwater_store.overrides
(
    id UInt64,
    pieces UInt8,
    sessions UInt8
)
PRIMARY KEY id
SOURCE(CLICKHOUSE(QUERY
    'SELECT 0 AS id,
        (SELECT max(length(bounds)) > 1 FROM headwater_store.attributions) AS pieces,
        (SELECT count() > 0 FROM headwater_store.resessions) AS sessions'))
LAYOUT(FLAT())
LIFETIME(0);

-- In one statement, since each takes as long as all. `settled`: what it was stored with is what it
-- says. `owner_now`: the owner where no override has two pieces, without the columns of
-- `event_order`; a query that began before such an override came takes what was known at loading.
-- The indexes: an event, and the events of a session or with an identifier, found among all.
ALTER TABLE headwater_store.events_rows
    ADD COLUMN IF NOT EXISTS settled Bool ALIAS NOT (
        dictHas('headwater_store.touched', reinterpretAsUInt64(subject))
        OR dictHas('headwater_store.touched', reinterpretAsUInt64(principal))),
    ADD COLUMN IF NOT EXISTS owner_now UUID ALIAS if(
        dictGet('headwater_store.overrides', 'pieces', toUInt64(0)) = 1,
        owner,
        if(
            length(dictGet('headwater_store.attributed', 'bounds', tuple(subject))) = 1,
            arrayElement(dictGet('headwater_store.attributed', 'principals', tuple(subject)), 1),
            principal)) AFTER owner,
    MODIFY COLUMN person UUID ALIAS if(
        settled,
        principal,
        dictGetOrDefault('headwater_store.aliased', 'person', tuple(owner_now), owner_now)),
    MODIFY COLUMN session_now Nullable(UUID) ALIAS if(
        NOT derived OR settled,
        if(derived AND principal = toUUID('00000000-0000-0000-0000-000000000000'), NULL, session_id),
        multiIf(
            person = toUUID('00000000-0000-0000-0000-000000000000'), NULL,
            dictGet('headwater_store.overrides', 'sessions', toUInt64(0)) = 0, session_id,
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
            session_id)),
    ADD INDEX IF NOT EXISTS by_event event_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_session session_id TYPE bloom_filter(0.001) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_value identities.value TYPE bloom_filter(0.001) GRANULARITY 1;

-- In the background, for what is stored already.
ALTER TABLE headwater_store.events_rows
    MATERIALIZE INDEX by_event, MATERIALIZE INDEX by_session, MATERIALIZE INDEX by_value
    SETTINGS mutations_sync = 0;

-- As before, but nobody is left out after the grouping, which spares a copy of every column.
CREATE OR REPLACE VIEW headwater.people AS
SELECT
    account_ AS account,
    person AS person_id,
    first_ AS first_seen,
    last_ AS last_seen,
    coalesce(
        accurateCastOrNull(
            concat('{', arrayStringConcat(
                arrayMap(one -> concat(toJSONString(one.1), ':', one.2), profile_), ','), '}') AS text_,
            'JSON'),
        CAST(concat('{"_text":', toJSONString(text_), '}'), 'JSON')) AS properties,
    CAST(arraySort(identities_), 'Array(Tuple(namespace String, value String))') AS identities,
    events
FROM
(
    SELECT
        account_, person, first_, last_, identities_, events,
        arrayFlatten(arrayMap(
            change -> arrayConcat(
                JSONExtractKeysAndValuesRaw(change.2), arrayMap(key -> (key, ''), change.3)),
            arrayReverseSort(change -> change.1, changes_))) AS newest_first_,
        arraySort(arrayFilter(
            (one, nth) -> nth = 1 AND one.2 != '',
            newest_first_,
            arrayEnumerateUniq(arrayMap(one -> one.1, newest_first_)))) AS profile_
    FROM
    (
        SELECT
            person,
            any(account) AS account_,
            min(ordered_at) AS first_,
            max(ordered_at) AS last_,
            count() AS events,
            groupUniqArrayArray(arrayMap(
                one -> (one.1.namespace, one.1.value),
                arrayFilter(
                    one -> one.2 != toUUID('00000000-0000-0000-0000-000000000000')
                        AND (one.1.strength != 'lookup'
                            OR dictGetOrDefault('headwater_store.aliased', 'person', tuple(one.2), one.2)
                                = person),
                    arrayZip(identities, keys)))) AS identities_,
            groupArrayIf(
                (event_order, profile_set, profile_unset),
                profile_set != '' OR notEmpty(profile_unset)) AS changes_
        FROM headwater_store.events_rows
        GROUP BY person
        HAVING person != toUUID('00000000-0000-0000-0000-000000000000')
    )
);

-- As before, but what belongs to no session is left out after the grouping, and the few values that
-- pulses do not have are of the same type: otherwise every text is written out for the union.
CREATE OR REPLACE VIEW headwater.sessions AS
SELECT
    account_ AS account,
    session_id,
    nullIf(person_, toUUID('00000000-0000-0000-0000-000000000000')) AS person_id,
    dialect_ AS dialect,
    first_ AS started_at,
    greatest(last_, pulsed_) AS ended_at,
    events_ AS events,
    errors_ AS errors,
    dialect_ IN ('vaix', 'orbee', 'gamooga') AS derived,
    scope_ AS scope,
    session_ AS session,
    now64(6) >= ended_at + if(closed_ >= ended_at, toIntervalSecond(10), toIntervalMinute(30)) AS over
FROM
(
    SELECT
        session_id,
        any(account) AS account_,
        anyIf(dialect, event) AS dialect_,
        anyIf(scope, event) AS scope_,
        anyIf(session, event) AS session_,
        argMaxIf(person, event_order, person != toUUID('00000000-0000-0000-0000-000000000000'))
            AS person_,
        minIf(at, event) AS first_,
        maxIf(at, event) AS last_,
        maxIf(at, NOT event) AS pulsed_,
        maxIf(at, closed) AS closed_,
        countIf(event) AS events_,
        countIf(kind = 'error') AS errors_
    FROM
    (
        SELECT
            account,
            ifNull(session_now, toUUID('00000000-0000-0000-0000-000000000000')) AS session_id,
            dialect, scope, session, person, event_order, ordered_at AS at, kind, true AS event,
            false AS closed
        FROM headwater_store.events_rows
        UNION ALL
        SELECT
            account, session_id, CAST('', 'LowCardinality(String)'),
            CAST('', 'LowCardinality(String)'), '',
            toUUID('00000000-0000-0000-0000-000000000000'), '', at,
            CAST('', 'LowCardinality(String)'), false, closed = 1
        FROM headwater_store.pulses
    )
    GROUP BY session_id
    HAVING session_id != toUUID('00000000-0000-0000-0000-000000000000')
)
WHERE events_ > 0;

-- As before, but each identifier's parts stay columns of their own.
CREATE OR REPLACE VIEW headwater.identities AS
SELECT
    account_ AS account, person AS person_id, namespace_ AS namespace, scope_ AS scope,
    value_ AS value, strength_ AS strength,
    key IN
    (
        SELECT key
        FROM
        (
            SELECT key, person
            FROM headwater_store.events_rows
            ARRAY JOIN keys AS key, identities.strength AS strength
            WHERE strength IN ('weak', 'correlation')
                AND key != toUUID('00000000-0000-0000-0000-000000000000')
                AND person != toUUID('00000000-0000-0000-0000-000000000000')
        )
        GROUP BY key
        HAVING min(reinterpretAsUInt128(person)) != max(reinterpretAsUInt128(person))
    ) AS shared,
    first_ AS first_seen, last_ AS last_seen, events, asserted_by
FROM
(
    SELECT
        person,
        key,
        any(account) AS account_,
        namespace AS namespace_,
        any(scope) AS scope_,
        any(value) AS value_,
        max(strength) AS strength_,
        min(ordered_at) AS first_,
        max(ordered_at) AS last_,
        count() AS events,
        argMin(event_id, event_order) AS asserted_by
    FROM headwater_store.events_rows
    ARRAY JOIN
        keys AS key, identities.namespace AS namespace, identities.scope AS scope,
        identities.value AS value, identities.strength AS strength
    WHERE key != toUUID('00000000-0000-0000-0000-000000000000')
        AND person != toUUID('00000000-0000-0000-0000-000000000000')
        AND (strength != 'lookup'
            OR dictGetOrDefault('headwater_store.aliased', 'person', tuple(key), key) = person)
    GROUP BY person, key, namespace
);
