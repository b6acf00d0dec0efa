"""The journal on SQLite: `SqliteWriter` for a collector process, `SqliteReader` for the hub, which
erases with a `SqliteEraser`.

Theory of operation
===================

**On disk.** Every writer has a folder of its own, and nobody else writes there (an flock on
``lock``)::

    journal/w1/00000001.sqlite        a segment: some 64 MiB, then the next
    journal/w1/00000001.sqlite-wal    the write-ahead log of the current one
    journal/w1/00000002.sqlite        the next one, made ahead of time (a spare)

**A group commit** is one row: all requests that arrived while the one before was being written, as
one msgpack array with a checksum over the whole row. One INSERT with synchronous=FULL appends the
pages to the log and returns after fdatasync; only then are the requests acknowledged, and only then
does SQLite publish the pages in its shared index, so that readers see what is durable and nothing
else. The event loop encodes and collects; a thread commits. While it does, the next group gathers:
the slower the disk, the larger the groups.

**What can tear.** A kill during a commit leaves frames behind the last good transaction in the log:
whole, and then the batch counts (nobody was told anything), or torn, and then SQLite drops it. A
power loss can also take back a whole batch that was written but not yet synced, which a reader may
have seen after a kill. Therefore:

**Numbers are never given twice.** A batch's number is the segment's number times 10^9 plus its
place. A writer that starts, and one whose write has failed, always goes on in a new segment, with
numbers that owe nothing to what the older files still hold.

**A failed write is final.** After an error of write or fsync nobody knows which pages are on disk,
and a second fsync would report success without writing them
(https://wiki.postgresql.org/wiki/Fsync_Errors). The segment is abandoned: everything queued is
refused, nothing is written to it again, no retry, no checkpoint. Once a second a new segment is
tried; when its first commit is durable, collecting goes on. That commit (`activate`) also says
where the one before ends, `previous_end`: a failed batch that some recovery of the old log might
bring back stands behind that end and is ignored; and when fewer batches are found than it says,
some were lost.

**Off the acknowledgement's path.** No checkpoint happens in a commit. A pool thread copies the log
into the file 2 MiB at a time while the segment fills, and retires it when it is full. The log's
blocks are allocated and zeroed beforehand when the disk has room: then a commit changes no file
system metadata, takes half the time, and does not wait for other files' writes. Freeing them
goes in small steps as well, after the log's head is gone: half a log with a head would undo newer
pages.

**Damage.** Numbers within a segment have no gaps and every row has its checksum, so a flipped bit,
a shortened file, or zeros show up as a checksum, a gap, or SQLite's own complaint. `read` gives
what is good before it and then raises JournalDamaged; `skip_damaged` looks for the next good row. A
newest file that is unreadable as a whole is not judged while its writer lives: it may be a spare.
A damaged log is different, since SQLite takes the first bad frame for its end: the writer counts
the commits behind that when it starts, keeps a copy, and writes an end that shows the gap.

**Erasing** rewrites finished segments in place (``sqlite_erasing``); a writer whose current one is
wanted goes on in the next. It is the only change that is ever made behind a segment's end.

**Bounds.** A writer refuses when its folder holds `bytes_max`; readers delete segments by age, once
loaded. A segment is never deleted while it is the newest.
"""

from headwater.journal.sqlite_erasing import SqliteEraser
from headwater.journal.sqlite_reader import SqliteReader
from headwater.journal.sqlite_writer import SqliteWriter

__all__ = ["SqliteEraser", "SqliteReader", "SqliteWriter"]
