"""Tasks done in this process, one after another: for debugging, and for data that is not worth starting Ray for."""

from collections import Counter
from collections.abc import Callable, Sequence

from refloom.ingest.engine.tasks import Status, Task, Worker
from refloom.ingest.engine.watch import Tally, Watch
from refloom.schemas.storage import Folder
from refloom.schemas.storeerrors import store_errors_stop


def run_inline(
    worker: Worker, tasks: Sequence[Task], notes: Folder, status: Status, on_status: Callable[[Status], None] | None
) -> None:
    """Run all tasks in this process, without Ray; arguments as for `refloom.ingest.engine.pool.WorkerPool.run`."""
    finished: Tally = Counter()
    for task in tasks:

        def report(unit: str, tally: Tally) -> None:
            status.tally = finished + tally
            if on_status is not None:
                on_status(status)

        with store_errors_stop(), Watch(task.unit, notes, report=report, timeout_s=0) as watch:
            worker.run(task, watch)
        status.done += 1
        status.weight_done += task.weight
        report(task.unit, watch.tally)
        finished.update(watch.tally)
