"""What is watched on the machine, as metrics: collectors, pools, Life Preserver. As it was read
last: nothing is asked here.

Pool figures have the names that ZFS exporters use, so that their dashboards fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collectors.supervisor import Collectors


def of_machine(collectors: Collectors) -> Iterator[Metric]:
    """All of them, as of now."""
    age = GaugeMetricFamily(
        "sysadmd_collector_age_seconds", "Since the last good look.", labels=["collector"]
    )
    failures = CounterMetricFamily(
        "sysadmd_collector_failures", "Looks that failed.", labels=["collector"]
    )
    for status in collectors.status():
        if status.age is not None:
            age.add_metric([status.name], status.age)
        failures.add_metric([status.name], status.failures)
    yield age
    yield failures
    yield from _pools(collectors)
    yield from _life_preserver(collectors)


def _pools(collectors: Collectors) -> Iterator[Metric]:
    figures = {
        name: GaugeMetricFamily(f"zfs_pool_{name}", text, labels=["pool"])
        for name, text in (
            ("size_bytes", "Size of the pool."),
            ("allocated_bytes", "Space in use."),
            ("free_bytes", "Space free."),
            ("fragmentation_ratio", "Fragmentation of the free space."),
            ("deduplication_ratio", "Deduplication."),
            ("health", "0 ONLINE, 1 DEGRADED, 2 FAULTED, 3 OFFLINE, 4 UNAVAIL, 5 REMOVED,"
             " 6 SUSPENDED"),
            ("last_scrub_timestamp_seconds", "When the last scrub ended, if that was the last"
             " scan."),
        )
    }  # fmt: skip
    for pool, values in collectors.pool_figures().items():
        for name, value in values.items():
            if name in figures:
                figures[name].add_metric([pool], value)
    yield from figures.values()
    errors = GaugeMetricFamily(
        "zfs_vdev_errors",
        "Errors of devices that have any, or are not well, since `zpool clear`.",
        labels=["pool", "vdev", "type"],
    )
    for pool, vdev, kind, count in collectors.vdev_errors():
        errors.add_metric([pool, vdev, kind], count)
    yield errors


def _life_preserver(collectors: Collectors) -> Iterator[Metric]:
    families = {
        outcome: GaugeMetricFamily(
            f"sysadmd_life_preserver_last_{outcome}_timestamp_seconds",
            f"When the log's last line of a {outcome} was read.",
            labels=["class"],
        )
        for outcome in ("success", "failure")
    }
    for kind, outcome, at in collectors.last_outcomes():
        families[outcome].add_metric([kind], at)
    yield from families.values()
