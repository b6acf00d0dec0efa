-- What pages break down by most, read from columns of its own. Every statement may run again. What
-- was measured: docs/decisions/0011-pages-at-ten-million.md.
--
-- A path of JSON is read with all its row says about types: 10 million rows take 1.8 s of processor
-- time, and a column of repeated texts 0.3 s. Nothing writes these columns: they follow from the
-- others, in a load, a replay and a fold alike.
--
-- The page: VAIX copies it to its context, the other dialects send it as a property (`url` is also
-- headwater.js's), Nucleus names its views, and a pixel's page is in its Referer.
--
-- Times: ZSTD took longer to unpack than all else that counts events took, 10 million of one column
-- 0.3 s of processor time; T64 and LZ4 take 0.1 s and one to two bytes more an event.
ALTER TABLE headwater_store.events_rows
    ADD COLUMN IF NOT EXISTS page LowCardinality(Nullable(String)) MATERIALIZED nullIf(
        cutQueryStringAndFragment(coalesce(
            nullIf(CAST(context.page, 'Nullable(String)'), ''),
            nullIf(CAST(properties.url, 'Nullable(String)'), ''),
            nullIf(CAST(properties.page, 'Nullable(String)'), ''),
            if(kind = 'page' AND dialect = 'nucleus', toString(name), NULL),
            if(kind = 'page' AND dialect IN ('orbee', 'vibetrace'),
                CAST(context.referrer, 'Nullable(String)'), NULL))),
        ''),
    ADD COLUMN IF NOT EXISTS country LowCardinality(Nullable(String))
        MATERIALIZED CAST(context.country, 'Nullable(String)'),
    ADD COLUMN IF NOT EXISTS device LowCardinality(Nullable(String))
        MATERIALIZED CAST(context.device.kind, 'Nullable(String)'),
    ADD COLUMN IF NOT EXISTS os LowCardinality(Nullable(String))
        MATERIALIZED CAST(context.device.os, 'Nullable(String)'),
    ADD COLUMN IF NOT EXISTS browser LowCardinality(Nullable(String))
        MATERIALIZED CAST(context.device.browser, 'Nullable(String)'),
    ADD COLUMN IF NOT EXISTS bot LowCardinality(Nullable(String))
        MATERIALIZED CAST(context.bot, 'Nullable(String)'),
    MODIFY COLUMN occurred_at DateTime64(6, 'UTC') CODEC(T64, LZ4),
    MODIFY COLUMN received_at DateTime64(6, 'UTC') CODEC(T64, LZ4),
    MODIFY COLUMN ordered_at DateTime64(6, 'UTC') DEFAULT occurred_at CODEC(T64, LZ4);

-- In the background, for what is stored already.
ALTER TABLE headwater_store.events_rows
    MATERIALIZE COLUMN page, MATERIALIZE COLUMN country, MATERIALIZE COLUMN device,
    MATERIALIZE COLUMN os, MATERIALIZE COLUMN browser, MATERIALIZE COLUMN bot
    SETTINGS mutations_sync = 0;

CREATE OR REPLACE VIEW headwater.events AS
SELECT
    event_id, request_id, account, dialect, scope, kind, name, occurred_at, received_at,
    nullIf(person, toUUID('00000000-0000-0000-0000-000000000000')) AS person_id,
    session_now AS session_id,
    CAST(arrayMap(one -> (one.namespace, one.value), identities),
        'Array(Tuple(namespace String, value String))') AS identities,
    properties, context, issues, transport, page, country, device, os, browser, bot
FROM headwater_store.events_rows;
