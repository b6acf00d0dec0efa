"""python nucleus_python_keeping.py ENDPOINT APP: an application with nucleus-python 0.3 that tracks
all the while, whatever becomes of the server; numbered events, and then time to send what is left.

Its timer reports once only, so the application asks it to. The pauses are the client's need, as in
nucleus_python.py; its ids are random numbers up to 10,000, so they are seeded. It may wait for
a thread that another one of its own has not started yet (RuntimeError); it is asked again then.
"""

import contextlib
import os
import random
import sys
import time

os.makedirs(os.environ["XDG_CACHE_HOME"], exist_ok=True)
random.seed(7)

import nucleus  # type: ignore[import-not-found]  # noqa: E402

COUNT = 24

nucleus.api_url, nucleus.app_id = sys.argv[1:3]
nucleus.report_interval = 3600
nucleus.app_started()
client = nucleus.current_client

for number in range(COUNT):
    with contextlib.suppress(RuntimeError):  # it is in the queue before the client writes that down
        nucleus.track(f"KEPT_{number}", data={"number": number})
    with contextlib.suppress(RuntimeError):
        client.report_data()
    time.sleep(0.3)
for _ in range(40):
    if not client.queue:
        break
    with contextlib.suppress(RuntimeError):
        client.report_data()
    time.sleep(0.3)
print("left in the queue:", len(client.queue))
