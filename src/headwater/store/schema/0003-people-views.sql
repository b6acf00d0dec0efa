-- What a user asks about events and people. Every statement may run again.

CREATE OR REPLACE VIEW headwater.events AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at,
    nullIf(person, toUUID('00000000-0000-0000-0000-000000000000')) AS person_id,
    session_now AS session_id,
    CAST(arrayMap(one -> (one.namespace, one.value), identities),
        'Array(Tuple(namespace String, value String))') AS identities,
    properties, context, issues, transport
FROM headwater_store.events_rows;

-- People, sessions and identifiers are grouped by ids alone, which have the account in them: with a
-- text beside it a key takes seven times as long to group (10 million events: 4.6 s, 0.6 s).
--
-- An identifier that is only looked up is the person's whose own key it is, nobody else's.
-- Properties: what was set last; what cannot be one JSON object together is kept as text.
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
        WHERE person != toUUID('00000000-0000-0000-0000-000000000000')
        GROUP BY person
    )
);

-- A session is alive until it was closed cleanly and not seen again for 10 s, or silent for 30
-- minutes. Pulses without an event make none.
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
        anyIf(account, event) AS account_,
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
            account, assumeNotNull(session_now) AS session_id, dialect, scope, session, person,
            event_order, ordered_at AS at, kind, 1 AS event, 0 AS closed
        FROM headwater_store.events_rows
        WHERE session_now IS NOT NULL
        UNION ALL
        SELECT
            account, session_id, '', '', '', toUUID('00000000-0000-0000-0000-000000000000'),
            '', at, '', 0, closed
        FROM headwater_store.pulses
    )
    GROUP BY session_id
)
WHERE events_ > 0;

CREATE OR REPLACE VIEW headwater.merges AS
SELECT account, at, kept, gone, cause, undone_at, merge_id
FROM headwater_store.merge_rows FINAL
WHERE NOT gone_away;

CREATE OR REPLACE VIEW headwater.erasures AS
SELECT account, person_id, erased_at, receipt
FROM headwater_store.erasures_rows FINAL;

-- Weak identifiers that events of more than one person carry are shared.
CREATE OR REPLACE VIEW headwater.identities AS
SELECT
    account_ AS account, person AS person_id, namespace_ AS namespace, scope_ AS scope,
    value_ AS value, strength_ AS strength,
    key_ IN
    (
        SELECT key
        FROM (SELECT person, keys, identities.strength AS strengths FROM headwater_store.events_rows)
        ARRAY JOIN keys AS key, strengths AS strength
        WHERE person != toUUID('00000000-0000-0000-0000-000000000000')
            AND key != toUUID('00000000-0000-0000-0000-000000000000')
            AND strength IN ('weak', 'correlation')
        GROUP BY key
        HAVING min(person) != max(person)
    ) AS shared,
    first_ AS first_seen, last_ AS last_seen, events, asserted_by
FROM
(
    SELECT
        person,
        any(account) AS account_,
        any(one.1.namespace) AS namespace_,
        any(one.1.scope) AS scope_,
        any(one.1.value) AS value_,
        max(one.1.strength) AS strength_,
        any(one.2) AS key_,
        min(ordered_at) AS first_,
        max(ordered_at) AS last_,
        count() AS events,
        argMin(event_id, event_order) AS asserted_by
    FROM
    (
        SELECT person, account, ordered_at, event_id, event_order, arrayZip(identities, keys) AS all_
        FROM headwater_store.events_rows
        WHERE person != toUUID('00000000-0000-0000-0000-000000000000')
    )
    ARRAY JOIN all_ AS one
    WHERE one.2 != toUUID('00000000-0000-0000-0000-000000000000')
        AND (one.1.strength != 'lookup'
            OR dictGetOrDefault('headwater_store.aliased', 'person', tuple(one.2), one.2) = person)
    GROUP BY person, reinterpretAsUInt128(one.2) + cityHash64(one.1.namespace)
);

CREATE OR REPLACE VIEW headwater.profile_history AS
SELECT
    account, person AS person_id, change.1 AS key, change.2 AS value, ordered_at AS at, event_id,
    dialect
FROM headwater_store.events_rows
ARRAY JOIN
    arrayConcat(
        arrayMap(
            one -> (one.1, CAST(one.2, 'Nullable(String)')),
            JSONExtractKeysAndValuesRaw(profile_set)),
        arrayMap(key -> (key, CAST(NULL, 'Nullable(String)')), profile_unset)) AS change
WHERE person != toUUID('00000000-0000-0000-0000-000000000000')
    AND (profile_set != '' OR notEmpty(profile_unset));
