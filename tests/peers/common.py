"""What both scripted peers share. A peer is told a scenario by its first argument and everything else by lines on its
standard input; what it sees it writes as one JSON object a line. It ends with its input."""

import asyncio
import json
import logging
import os
import sys
import threading
import traceback

LIMIT = 60  # seconds that a scenario may take

if "BOWLINE_SLOW" in os.environ:
    LIMIT = 300

logging.disable(logging.CRITICAL)


one_at_a_time = threading.Lock()


def tell(saw, **more):
    with one_at_a_time:
        print(json.dumps({"saw": saw, **more}), flush=True)


async def told(lines):
    """The next line of the input."""
    return await lines.get()


def run(scenarios, prepare=None):
    async def main():
        lines = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def read():
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line.strip())
            os._exit(0)  # whoever started us is gone, or has seen enough

        threading.Thread(target=read, daemon=True).start()
        if prepare:
            prepare()
        await asyncio.wait_for(scenarios[sys.argv[1]](lines), LIMIT)
        tell("end")
        await asyncio.Event().wait()

    try:
        asyncio.run(main())
    except BaseException:
        tell("error", what=traceback.format_exc())
        os._exit(1)
