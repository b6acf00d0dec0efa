"""serve, collect, load: the server and its parts."""

from __future__ import annotations

import typer

from headwater import app as supervisor
from headwater.commands.options import DEFAULT_CONFIG, ConfigOption, errors_said


def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Collect, load and answer questions: the whole server in one command.

    Prints one line, `ready collect=http://HOST:PORT console=http://HOST:PORT`, once both ports
    answer; port 0 in the configuration picks a free one. At the first start it makes the console's
    token, keeps it in the data folder and prints a URL with it, on a line of its own.

    SIGTERM or Ctrl-C: stop accepting, answer what was accepted, flush, exit 0 within 30 seconds.
    SIGHUP: read the file again; accounts and tokens are in force within 5 seconds.
    """
    with errors_said():
        status = supervisor.run(config)
    raise typer.Exit(status)


def collect(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Only the collectors: accept requests and journal them.

    What they journal waits, up to journal.max_bytes, until `headwater load` or `serve` runs on the
    same data folder.
    """
    with errors_said():
        status = supervisor.run(config, hub=False)
    raise typer.Exit(status)


def load(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Only the hub: load the journal into the store, and answer on the console's port.

    The embedded store can be open in one process only, so loader and console are one process.
    """
    with errors_said():
        status = supervisor.run(config, collectors=False)
    raise typer.Exit(status)
