"""The Dask cluster: every kind that runs without Slurm computes; mistakes are told in a sentence."""

import os
import re
import time
from collections.abc import Iterator
from urllib.request import urlopen

import dask
import pytest
from distributed import Future, LocalCluster

from wscnn.core.cluster import connect, cpus, in_flight
from wscnn.core.config import complete_config
from wscnn.core.errors import UserError


def settings(**given: object) -> dict:
    config = {"screen": "s", "plates": "p", "layout": "l", "acquisition": {"channels": {"1": "DNA"}}, "dask": given}
    return complete_config(config, "test")["dask"]


def test_threads_share_this_process() -> None:
    with connect(settings(cluster="threads", workers=3)) as client:
        assert client.submit(os.getpid).result() == os.getpid()
        assert sum(client.nthreads().values()) == 3


def test_threads_by_default_are_the_jobs_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert cpus() == 1
    with connect(settings()) as client:
        assert sum(client.nthreads().values()) == 1


def test_slurm_never_grants_more_than_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    assert cpus() == len(os.sched_getaffinity(0))


def test_local_workers_are_other_processes() -> None:
    with connect(settings(cluster="local", workers=2)) as client:
        processes = client.run(os.getpid).values()
    assert len(set(processes) - {os.getpid()}) == 2


@pytest.mark.parametrize("cluster", ["threads", "local"])
def test_the_profiler_which_may_stop_python_for_ever_is_off(cluster: str) -> None:
    with connect(settings(cluster=cluster, workers=1)) as client:
        client.submit(time.sleep, 1).result()
        assert client.profile()["count"] == 0


def test_an_address_is_joined_and_its_scheduler_left_running() -> None:
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as running:
        for _ in range(2):
            with connect(settings(cluster=running.scheduler_address)) as client:
                assert client.submit(sum, [1, 2]).result() == 3


def test_an_address_without_workers_is_told() -> None:
    with (
        LocalCluster(n_workers=0, protocol="tcp", host="127.0.0.1", dashboard_address=None) as running,
        pytest.raises(UserError, match=rf"no worker came within 1 s.*start workers.*{running.scheduler_address}"),
        connect(settings(cluster=running.scheduler_address, wait_s=1)),
    ):
        pass


def test_workers_that_die_at_work_are_reported() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(UserError, match=r"local: several workers died.*memory ran out; set dask\.workers lower"),
        connect(settings(cluster="local", workers=1)) as client,
    ):
        client.submit(os._exit, 9).result()


def test_a_word_that_is_no_cluster_is_named() -> None:
    with (
        pytest.raises(UserError, match=r"dask\.cluster: 'thread' .*threads.*local.*slurm"),
        connect(settings(cluster="thread")),
    ):
        pass


def test_closing_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with connect(settings(cluster="local", workers=1)) as client:
        client.submit(sum, [1]).result()
        # Where the dashboard is, is all that is said; and there it is.
        said = capfd.readouterr()
        (address,) = re.findall(r"^Dask dashboard: (http://127\.0\.0\.1:\d+/status)\n$", said.err)
        assert said.out == ""
        with urlopen(address, timeout=30) as page:
            assert page.status == 200
    assert capfd.readouterr() == ("", "")


def test_no_more_than_the_window_is_in_flight_and_order_is_kept() -> None:
    submitted, taken = [], []
    with connect(settings(workers=2)) as client:

        def submit() -> Iterator[tuple[int, Future]]:
            for item in range(7):
                submitted.append(item)
                # The first takes longest.
                yield item, client.submit(time.sleep, 0.2 if item == 0 else 0, pure=False)

        for item, _ in in_flight(submit(), 3):
            assert len(submitted) - len(taken) <= 3
            taken.append(item)
    assert taken == list(range(7))
