"""python nucleus_python.py ENDPOINT APP: what an application does with nucleus-python 0.3.

Runs in an environment of its own, not in the tests'. The pauses are the client's need: an answer
that arrives during a call to track() trips over its own bookkeeping.
"""

import os
import sys
import time

cache = os.environ["XDG_CACHE_HOME"]  # the client keeps its queue there and does not make it
os.makedirs(cache, exist_ok=True)

import nucleus  # type: ignore[import-not-found]  # noqa: E402

nucleus.api_url, nucleus.app_id = sys.argv[1:3]
nucleus.report_interval = 3600
nucleus.track("BEFORE_INIT", data={"n": 1})
time.sleep(0.2)
nucleus.app_started()
time.sleep(1.0)
nucleus.set_user_id("grace@example.com")
time.sleep(0.2)
nucleus.track("PLAYED_TRACK", data={"trackName": "Ünï ☃", "duration": 120})
time.sleep(0.2)
try:
    1 / 0  # noqa: B018
except ZeroDivisionError as error:
    nucleus.track_error(error)
time.sleep(0.2)
nucleus.current_client.report_data()
time.sleep(2.0)
left = nucleus.current_client.queue
print("left in the queue:", len(left))
sys.exit(1 if left else 0)
