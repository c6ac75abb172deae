"""A Ray cluster of two nodes with one CPU each on the loopback address, for tests.

Prints its address; a line ``kill`` on its standard input kills the second node as a lost machine is lost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from helpers.sweeps.cluster import STARTS, STORE_BYTES, light_imports


def main() -> None:
    """Start both nodes and obey standard input until it ends."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    with light_imports():
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE_BYTES}
        cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False}))
        second = patiently(lambda: cluster.add_node(**size))
        print(f"address {cluster.address}", flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(second, allow_graceful=False)
                print("killed", flush=True)
        cluster.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    """``start()``, again when a busy machine did not let Ray start in the 15 s that it gives itself."""
    for attempt in range(1, STARTS + 1):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == STARTS:
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
