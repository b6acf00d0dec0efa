"""Headwater with a part changed: ``serving_process CHANGE COMMAND --config FILE``, as a module.

The whole server, its processes wired as ever, but for one thing. With CHANGE

- ``whole`` the loader ends itself by SIGKILL at the checkpoint that the file ``die-at`` beside the
  configuration names (and takes that file away);
- ``unsynced`` the journal's commits do not wait for the disk;
- ``slow`` each of its commits takes besides what the file ``slow-disk`` beside the configuration
  says, in seconds;
- ``crowded`` a collector takes 128 connections, and not 10,000;
- ``unreconciled`` the loader forgets to ask the store what a load that was cut short has left;
- ``undeduped`` every dedupe key is taken for a new one.

The three ``un-`` are the negative controls: the checker must find what they break. What is changed
stands in ``changed_collector.py`` and ``changed_hub.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from headwater import app

CHILDREN = {
    "headwater.collector": "tests.faults.changed_collector",
    "headwater.hub": "tests.faults.changed_hub",
}


class Wired(app.Supervisor):
    """Starts the changed children; their own names follow as an argument."""

    change = "whole"

    def _prepare(self, say: Callable[[str], None]) -> None:
        super()._prepare(say)
        for child in (*self._workers, *([self._hub] if self._hub else [])):
            name = child._arguments[1]
            child._arguments[1:2] = [CHILDREN[name], self.change, name]


def main() -> int:
    change, command, *rest = sys.argv[1:]
    Wired.change = change
    app.Supervisor = Wired  # type: ignore[misc]
    config = Path(rest[rest.index("--config") + 1])
    return app.run(config, hub=command != "collect", collectors=command != "load")


if __name__ == "__main__":
    sys.exit(main())
