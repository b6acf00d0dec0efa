-- Rows of events as bench.pages_store makes them from their numbers; @names@ are filled in.
-- p is the person, s the session, number the event. Six of ten people are known by a strong key; an
-- event comes before the key was shown in its session, or carries it.
WITH
    @events@ AS events_all,
    @persons@ AS persons_all,
    toUInt64(floor(number * 3 / 20)) AS s,
    sipHash64(s) AS h,
    sipHash64(number, 1) AS r,
    -- A few come often: the square of an even share.
    toUInt64(persons_all * pow((h % 1000003) / 1000003., 1.6)) AS p,
    ['vaix', 'vaix', 'vaix', 'nucleus', 'nucleus', 'nucleus', 'orbee', 'vibetrace', 'vibetrace',
        'gamooga'][intDiv(h, 1000003) % 10 + 1] AS dialect_,
    p % 10 >= 4 AS known_,
    number - toUInt64(ceil(s * 20 / 3)) AS nth,
    toString(p) AS ps,
    concat('s', ps) AS strong_text,
    concat('w', ps, dialect_) AS weak_text,
    @strong@ AS strong_key,
    @weak@ AS weak_key,
    dialect_ IN ('vaix') OR (known_ AND nth >= 2) AS named,
    if(named, strong_key, weak_key) AS subject_,
    if(known_ AND p >= @late@ OR dialect_ = 'vaix', strong_key, weak_key) AS principal_,
    fromUnixTimestamp64Micro(toInt64(@began@ * 1000000 + floor(number / events_all * @days@ * 86400e6))
        , 'UTC') AS at_,
    addMicroseconds(at_, -toInt64(r % 3000000)) AS client_at_,
    multiIf(
        dialect_ = 'vaix', ['clicks:event', 'impressions:event', 'clicks:selection', 'bets:place',
            'impressions:widget', 'navigate:page', 'views:event', 'search:query'],
        dialect_ = 'nucleus', ['init', 'PLAYED_TRACK', 'OPENED_SETTINGS', 'view', 'SHARED', 'SEARCHED',
            'userid', 'TypeError'],
        dialect_ = 'orbee', ['view:page', 'submit:form', 'click:cta', 'view:vehicle', 'view:page',
            'start:chat', 'view:vehicle', 'view:page'],
        dialect_ = 'vibetrace', ['pageview', 'product', 'category', 'addtocart', 'pageview', 'product',
            'confirmation', 'pageview'],
        ['open', 'view', 'add_to_cart', 'order', 'view', 'view', 'review', 'logout']
    ) AS names,
    names[toUInt64(8 * pow((r % 10007) / 10007., 1.5)) + 1] AS name_,
    multiIf(
        name_ = 'TypeError', 'error', name_ IN ('view', 'view:page', 'pageview', 'navigate:page'), 'page',
        name_ = 'init', 'session_start', name_ = 'userid', 'identify', 'track') AS kind_,
    concat('/', ['home', 'shop', 'cart', 'search', 'help'][r % 5 + 1], '/', toString(r % 400)) AS page
SELECT
    reinterpretAsUUID(MD5(concat('e', toString(number)))) AS event_id,
    reinterpretAsUUID(MD5(concat('r', toString(number)))) AS request_id,
    if(h % 50 = 0, 'second', 'bench') AS account,
    dialect_ AS dialect,
    multiIf(dialect_ = 'vaix', 'group-a', dialect_ = 'orbee', '1/1', 'app1') AS scope,
    kind_ AS kind,
    name_ AS name,
    client_at_ AS occurred_at,
    at_ AS received_at,
    client_at_ AS ordered_at,
    reinterpretAsUUID(MD5(concat('session', toString(s)))) AS session_id,
    if(dialect_ IN ('nucleus', 'vibetrace'), toString(s), '') AS session,
    CAST(arrayConcat(
        if(named, [(multiIf(dialect_ = 'vaix', 'vaix:user', dialect_ = 'nucleus', 'nucleus:user',
            dialect_ = 'gamooga', 'gamooga:user', 'email'), 'app1',
            if(dialect_ IN ('orbee', 'vibetrace'), concat('person', ps, '@example.com'), concat('u', ps)),
            'strong', false)], []),
        if(dialect_ != 'vaix', [(multiIf(dialect_ = 'nucleus', 'nucleus:anon', dialect_ = 'orbee',
            'orbee:duid', dialect_ = 'gamooga', 'gamooga:visitor', 'vibetrace:user'), 'app1', weak_text,
            'weak', false)], []),
        if(dialect_ = 'nucleus', [('nucleus:device', 'app1', concat('device', ps), 'context', false)], []))
        , 'Array(Tuple(namespace LowCardinality(String), scope LowCardinality(String), value String, strength LowCardinality(String), denied Bool))')
        AS identities,
    arrayConcat(
        if(named, [strong_key], []), if(dialect_ != 'vaix', [weak_key], []),
        if(dialect_ = 'nucleus', [toUUID('00000000-0000-0000-0000-000000000000')], [])) AS keys,
    subject_ AS subject,
    principal_ AS principal,
    CAST(multiIf(
        kind_ = 'error', concat('{"message":"cannot read ', toString(r % 60), '","stack":"TypeError\\n at f', toString(r % 60), ' (app.js:1:2)"}'),
        dialect_ = 'vaix', concat('{"page":"', page, '","position":', toString(r % 20), ',"location":"widget:', toString(r % 9), '"}'),
        dialect_ = 'orbee', concat('{"url":"https://shop.example', page, '","label":"l', toString(r % 50), '","value":', toString(r % 100), '}'),
        dialect_ = 'vibetrace', concat('{"url":"https://shop.example', page, '","product":"p', toString(r % 5000), '","total":', toString(r % 300), '}'),
        dialect_ = 'nucleus', concat('{"trackName":"t', toString(r % 1000), '","n":', toString(r % 7), '}'),
        concat('{"sku":"A', toString(r % 2000), '","price":', toString(r % 90), '}')), 'JSON') AS properties,
    CAST(concat('{"ip":"192.0.2.', toString(h % 250), '","country":"', ['NL', 'DE', 'US', 'FR', 'GB', 'ES',
        'IT', 'PL'][h % 8 + 1], '","device":{"browser":"', ['Chrome', 'Safari', 'Firefox', 'Edge'][h % 4 + 1],
        '","os":"', ['Windows', 'iOS', 'Android', 'macOS'][intDiv(h, 7) % 4 + 1], '"},"user_agent":"Mozilla/5.0 (',
        toString(h % 300), ')"}'), 'JSON') AS context,
    if(name_ = 'userid' OR (dialect_ != 'vaix' AND r % 40 = 0),
        concat('{"plan":"', ['free', 'pro', 'team'][r % 3 + 1], '","age":', toString(18 + r % 60), '}'), '')
        AS profile_set,
    [] AS profile_unset,
    '{"type":"event"}' AS raw,
    if(r % 97 = 0, ['unreadable_date: date'], []) AS issues,
    if(dialect_ = 'nucleus', 'websocket', 'http') AS transport,
    1 AS writer,
    intDiv(number, 100) AS batch,
    number % 100 AS request,
    0 AS idx,
    sipHash64(number) AS digest
FROM numbers(@start@, @count@)
