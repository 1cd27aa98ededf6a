"""Some workers of one study: NAME WORKERS. Each tells what its trials come to until there are no more."""

import math
import sys
import threading
import time

import clary

name, workers = sys.argv[1], int(sys.argv[2])
failed: list[BaseException] = []


def work() -> None:
    try:
        with clary.Client() as client:
            for trial in client.study(name):
                with trial:
                    for epoch in range(1, 4):
                        time.sleep(0.05)
                        trial.report(epoch, math.log10(float(trial["lr"])) ** 2 + 1 / epoch)
                    trial.tell(math.log10(float(trial["lr"])) ** 2)
    except BaseException as error:
        failed.append(error)
        raise


threads = [threading.Thread(target=work) for _ in range(workers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(1 if failed else 0)
