"""Another program's SQLite database lies under the name of a segment."""

from pathlib import Path

import apsw


def damage(path: Path) -> None:
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE batches (n INTEGER PRIMARY KEY, recipe TEXT)")
    connection.execute("INSERT INTO batches VALUES (1, 'two cakes')")
    connection.close()
