"""Every bound, in one place: units last in the name, the reason beside the number."""

from __future__ import annotations

# --- one request -------------------------------------------------------------------------------
target_bytes_max = 8_192  # most servers' default; enough for every path without data in it
target_bytes_max_query = 65_536  # Vibetrace and Gamooga carry the whole event in the URL
header_count_max = 100
headers_bytes_max = 32_768
vaix_body_bytes_max = 8_000_000  # the vendor's own documented 413
nucleus_body_bytes_max = 16 * 1024 * 1024  # clients send their whole queue in one message
orbee_body_bytes_max = 262_144
vibetrace_body_bytes_max = 262_144  # a POST form is a superset here; same as Orbee
gamooga_body_bytes_max = 1_048_576
json_depth_max = 100  # the store's JSON column refuses some hundreds; no real event is so deep
json_nesting_max = 400  # more is bad JSON: the parser's own bound moves with the caller's stack
json_keys_max = 1_000  # a JSON column makes a path of each; more is kept as text, with an issue

# --- time --------------------------------------------------------------------------------------
headers_seconds_max = 10.0  # from the first byte; dripping bytes does not extend it
body_seconds_max = 20.0
unread_answer_seconds_max = 20.0
idle_seconds_max = 75.0  # nginx's keep-alive default
websocket_idle_seconds_max = 180.0  # mobile clients suspend; two missed pings
websocket_ping_seconds = 60.0
drain_seconds_max = 25.0  # SIGTERM must end within 30 s

# --- one collector process ---------------------------------------------------------------------
connections_max = 10_000  # ~8 KiB each in this process: 80 MB at the most
inflight_bytes_max = 64 * 1024 * 1024  # request bytes held before their fsync
pipeline_requests_max = 64  # answers owed on one connection before reading pauses
websocket_messages_max = 16  # messages of one socket that wait for their fsync
websocket_sessions_max = 16  # that one socket is known to carry; a client has one
websocket_session_bytes_max = 1_024  # of the ids that name one; longer ones end by silence
rate_buckets_max = 65_536  # clients that the rate limiter remembers
rate_burst_seconds = 2.0
token_cache_max = 4_096  # verified JWTs

# --- journal -----------------------------------------------------------------------------------
batch_requests_max = 2_048  # one group commit
batch_bytes_max = 8 * 1024 * 1024
segment_bytes_max = 64 * 1024 * 1024  # then a new file: old ones are checkpointed off the ack path
journal_bytes_max = 20 * 1024 * 1024 * 1024  # default of [journal] max_bytes; then 503
sweep_bytes_max = 2 * 1024 * 1024  # checkpointed at a time: a few ms of disk, 64 MiB would be 100
journal_probe_seconds = 1.0  # how soon a writer that is full or has failed looks again
journal_commit_seconds_max = 5.0  # a commit under way for longer: the disk hangs, not ready
journal_rewrite_seconds_max = 30.0  # for an erasure, one segment at a time; takes a second or two
journal_leave_seconds_max = 30.0  # for a writer to go on in another file; looks once a second
journal_open_files_max = 16  # segments that a reader keeps open; two descriptors and a map each
damaged_rows_tried_max = 200_000  # looking for the next good batch: a second or two, in a disaster
visitor_cache_max = 100_000  # Gamooga ids answered without asking the registry
visitor_questions_max = 1_024  # answered in one transaction; its fsync is far dearer than these
registry_busy_seconds_max = 10.0  # waiting for another process's transaction, milliseconds each
seen_cache_bytes = 48 * 1024 * 1024  # the hub's, of its 1 GB: the pages of the last minutes
sessions_cache_bytes = 16 * 1024 * 1024  # the hub's: pages of last sessions
sessions_remembered_max = 100_000  # last sessions kept at hand, some 500 bytes each: 50 MB
session_persons_max = 500  # whose events are read together to cut them anew
session_settle_seconds_max = 1.0  # of a step; who is still in doubt then waits for the next
seen_forget_rows = 20_000  # looked at in one call: some 5 ms, with the loader waiting

# --- hub ---------------------------------------------------------------------------------------
load_events_max = 20_000  # one insert
load_bytes_max = 32 * 1024 * 1024
load_poll_seconds = 0.05
load_gap_seconds = 0.2  # at low rates, no more than five inserts a second
agents_remembered_max = 8_192  # user agents already understood; 2 KiB each: 16 MiB at the most
agent_chars_max = 1_024  # read of a user agent; real ones have 300, and more takes longer to match
addresses_remembered_max = 65_536  # countries already looked up; 200 bytes each
dedupe_days_min = 8  # the window promised is 7 days; the day of arrival counts as a whole
known_keys_max = 100_000  # identifiers remembered between steps, some 500 bytes each
people_cache_bytes = 64 * 1024 * 1024  # the hub's, of its 1 GB: pages of the identifiers' file
group_rows_max = 20_000  # of one Orbee group looked at together: some 100 ms
live_subscribers_max = 64
live_batches_max = 8  # loads that wait to be shown; more are left out, and said
live_queue_events_max = 1_000  # a slow reader is dropped, never waited for
overrides_max = 20_000  # of who did a row, beside the rows: loaded again at each write, some 30 ms
erasing_seconds_max = 60.0  # for the parts from before an erasure to go; they go at once
plan_bytes_max = 1_048_576  # a tracking plan; each process of ours holds it
plan_names_max = 2_000  # event names in one; a compiled schema takes some 10 KB
plan_violations_max = 8  # named of one event; the first say what is wrong
plan_values_max = 100  # of an event that is told where it breaks; each error is 1.5 KB and 13 us
plan_text_chars_max = 200  # of what is broken, as it stands in issues and counts
plan_counts_max = 2_000  # kinds of violations of one load; more count together, without a name
profile_window_seconds = 60  # looked at together, once it is over
profile_catch_up_seconds = 3_600  # the same, of what is older than that
profile_rows_per_name_max = 50  # of each account's, dialect's and name's in a window: a sample
profile_rows_max = 5_000  # of a window together: some 50 ms of the engine
profile_kinds_max = 10_000  # of paths and types in a window; what a client makes up has an end
profile_path_chars_max = 200
store_memory_bytes_max = 600 * 1024 * 1024  # chDB, of the hub's 1 GB

# --- one query ---------------------------------------------------------------------------------
query_seconds_max = 10
query_memory_bytes_max = 512 * 1024 * 1024
query_rows_max = 1_000_000
query_answer_bytes_max = 64 * 1024 * 1024
query_text_bytes_max = 65_536
api_body_bytes_max = 1_048_576  # a request to try, or a query with its text
health_sample_seconds = 5.0
health_samples_max = 720  # an hour
saved_queries_max = 500  # files in one folder, all listed at once
query_parallel_max = 3  # times their memory: what the hub may grow by
queries_waiting_max = 16  # those that run among them; more are told to come back
people_found_max = 100  # a value that more people carry is no way to find one
people_page_max = 50  # who acted last; more are found by searching
person_events_page_max = 50  # of a timeline; the next page is one press away
merges_shown_max = 200  # the latest; each is named by an event that has to be found
person_rows_shown_max = 1_000  # of each list about a person; an export has no such bound
exports_parallel_max = 2  # each reads the whole journal, and shares the interpreter with the loader

# --- one question of the pages -------------------------------------------------------------------
explore_filters_max = 20
explore_values_max = 100  # of one filter
explore_series_max = 50  # lines of one chart; nobody tells more apart
explore_top_max = 1_000
explore_buckets_max = 2_000  # points of one line; a wide screen has as many pixels
explore_sample_events_max = 5_000  # looked at for the paths of their properties: some 30 ms
funnel_steps_max = 10
funnel_window_days_max = 366
retention_periods_max = 60

# --- one request looked into --------------------------------------------------------------------
provenance_bytes_max = 262_144  # of JSON that is told apart value by value: 0.3 s at the worst
provenance_tokens_max = 131_072
provenance_leaves_max = 2_000  # values tried; real requests have some 50
provenance_decodes_max = 8_000  # for one event; three for each value, 10 to 50 us each
provenance_seconds_max = 1.0  # for all events of a request: somebody looks at a page
inspect_events_max = 20  # of one request, shown with their provenance; others when asked for
inspect_body_bytes_max = 262_144  # of one request, shown
try_answer_bytes_max = 65_536  # of the answer to a request that was tried
try_seconds_max = 10.0  # for that answer
try_visible_seconds_max = 2.0  # promised is one second; then the page says so and asks again
