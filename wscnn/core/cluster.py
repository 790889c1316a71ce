"""Where Dask's tasks run: threads of this process, processes of this machine, Slurm jobs, or a given scheduler."""

import logging
import os
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster

from wscnn.core.errors import UserError
from wscnn.core.progress import log

T = TypeVar("T")

# Seconds to wait for a given scheduler.
_CONNECT_TIMEOUT = 30
# What to do when workers die while at work, usually because memory ran out, by kind of cluster.
_MORE_MEMORY = {
    "local": "set dask.workers lower, or give the job more memory (mem_mb in the profile)",
    "slurm": "raise dask.slurm.memory",
}
_SETTINGS = {
    # The profiler inspects the frames of other threads a hundred times per second, which can crash or hang Python 3.11
    # while garbage is collected or a thread starts or ends.
    "distributed.worker.profile.enabled": False,
    # Spawned, never forked: the parent holds threads (torch, zarr) that a fork would leave locked.
    "distributed.worker.multiprocessing-method": "spawn",
    # Arrays of a well travel as task arguments on purpose.
    "distributed.admin.large-graph-warning-threshold": "1GB",
    # What a task raises is raised again where its result is requested; the workers' own messages about it, and about
    # tasks dropped as a consequence, would bury the sentence that gives the reason.
    "logging.distributed": "critical",
}


def cpus() -> int:
    """Return how many cores this job may use: the process's affinity, limited by what Slurm granted."""
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, int(granted)) if granted.isdigit() and int(granted) > 0 else allowed


@contextmanager
def connect(settings: dict[str, Any]) -> Iterator[Client]:
    """Yield a Dask client for the cluster that `settings` ask for, and close what was started afterwards.

    Parameters
    ----------
    settings
        The config's section ``dask``: ``cluster`` is ``threads`` (in this process, which reads fast because nothing
        is copied), ``local`` (processes of this machine), ``slurm`` (jobs that dask-jobqueue submits) or the address
        of a running scheduler, whose workers must see the same files.

    Raises
    ------
    UserError
        When a given scheduler does not answer, Slurm cannot be asked, no worker starts, or workers die while at work.
    """
    try:
        with _client(settings) as client:
            yield client
    except KilledWorker:
        more = _MORE_MEMORY.get(settings["cluster"], "give its workers more memory")
        raise UserError(
            f"dask.cluster: {settings['cluster']}: several workers died at the same task, usually because memory ran "
            f"out; {more}"
        ) from None


@contextmanager
def _client(settings: dict[str, Any]) -> Iterator[Client]:
    kind = settings["cluster"]
    with dask.config.set(_SETTINGS):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if kind in ("threads", "local"):
            workers = settings["workers"] or cpus()
            in_threads = kind == "threads"
            with (
                # It listens on this address only, whatever the machine's name.
                dask.config.set({"distributed.dashboard.link": "{scheme}://127.0.0.1:{port}/status"}),
                LocalCluster(
                    n_workers=1 if in_threads else workers,
                    threads_per_worker=workers if in_threads else 1,
                    processes=not in_threads,
                    dashboard_address="127.0.0.1:0",
                    # It would be most of the start-up time; the job's log shows what threads do.
                    scheduler_kwargs={"dashboard": not in_threads},
                    # Wells in flight are bounded by the caller; Dask's own limit would pause or kill workers.
                    memory_limit=None,
                    silence_logs=logging.CRITICAL,
                ) as cluster,
                Client(cluster) as client,
            ):
                if not in_threads:
                    _announced(client)
                yield client
        elif kind == "slurm":
            with _slurm_cluster(settings["slurm"]) as cluster, Client(cluster) as client:
                _announced(client)
                _wait_for_worker(
                    client,
                    settings["wait_s"],
                    "see with squeue --me why its jobs do not start, and correct dask.slurm",
                )
                yield client
        else:
            try:
                client = Client(kind, timeout=_CONNECT_TIMEOUT)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"dask.cluster: no scheduler answers at '{kind}' ({error}); "
                    "give threads, local, slurm or an address such as tcp://host:8786"
                ) from None
            with client:
                _announced(client)
                _wait_for_worker(client, settings["wait_s"], f"start workers of the scheduler at '{kind}'")
                yield client


class Promise(Protocol):
    """A future, of Dask or of the standard library."""

    def result(self) -> Any:
        """Return the result, waiting until it is available."""


def threads_for(*, gpu: bool) -> int:
    """Return how many threads run networks at a time: one per core, or one that feeds a GPU."""
    return 1 if gpu else cpus()


def in_flight(futures: Iterable[tuple[T, Promise]], window: int) -> Iterator[tuple[T, Any]]:
    """Yield each item with its future's result, in order, while the next ones are computed.

    Parameters
    ----------
    futures
        Pairs of an item and its future. Drawn only as far as the window reaches, so that an iterable that submits as
        it is drawn has no more than `window` tasks waiting.
    window
        Most futures that are computed at one time.
    """
    waiting: deque[tuple[T, Promise]] = deque()
    for pair in futures:
        waiting.append(pair)
        if len(waiting) >= window:
            item, future = waiting.popleft()
            yield item, future.result()
    for item, future in waiting:
        yield item, future.result()


def _slurm_cluster(settings: dict[str, Any]) -> Any:
    """Return a cluster whose workers are Slurm jobs, each one process with as many threads as it has cores."""
    from dask_jobqueue.slurm import SLURMCluster

    cluster = SLURMCluster(
        queue=settings["queue"],
        account=settings["account"],
        cores=settings["cores"],
        processes=1,
        memory=settings["memory"],
        walltime=settings["walltime"],
        job_extra_directives=settings["extra"],
        job_script_prologue=["export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False"],
        scheduler_options={"dashboard_address": ":0"},
    )
    # A submission that Slurm refuses would otherwise be repeated for ever, silently.
    try:
        test = subprocess.run(["sbatch", "--test-only"], input=cluster.job_script(), capture_output=True, text=True)
        refusal = test.stderr if test.returncode else ""
    except OSError as error:
        refusal = str(error)
    if refusal:
        cluster.close()
        raise UserError(f"dask.slurm: Slurm does not take the workers' jobs: {' '.join(refusal.split())}")
    cluster.scale(jobs=settings["jobs"])
    return cluster


def _announced(client: Client) -> None:
    """Log the address of the dashboard; a given scheduler may have none."""
    if "dashboard" in client.scheduler_info(n_workers=0)["services"]:
        log(f"Dask dashboard: {client.dashboard_link}")


def _wait_for_worker(client: Client, seconds: int, otherwise: str) -> None:
    """Return once there is a worker."""
    if not client.nthreads():
        log(f"waiting for a worker, at most {seconds} s")
    try:
        # By a task, for which a scheduler that starts workers as they are needed starts one.
        client.submit(int, pure=False).result(timeout=seconds)
    except TimeoutError:
        raise UserError(
            f"dask.cluster: no worker came within {seconds} s (dask.wait_s); {otherwise}, or set dask.cluster: threads"
        ) from None
