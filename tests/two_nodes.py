"""A Ray cluster on the loopback address, for tests: by default two nodes with one CPU each.

``python -m two_nodes '[{}, {"num_gpus": 2, "env_vars": {...}}]'`` gives each node what it has. Prints the address; a
line ``kill`` on its standard input kills the last node as a lost machine is lost.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from helpers.sweeps.cluster import STARTS, STORE_BYTES, light_imports
from helpers.system import leftovers


def main() -> None:
    """Start both nodes and obey standard input until it ends."""
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    with leftovers.temporary_folder("claimbook-nodes-") as folder, light_imports(folder / "path"):
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE_BYTES}
        first, *others = json.loads(sys.argv[1]) if len(sys.argv) > 1 else [{}, {}]
        head = size | first | {"include_dashboard": False}
        cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        nodes = [patiently(lambda more=more: cluster.add_node(**size | more)) for more in others]
        print(f"address {cluster.address}", flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(nodes[-1], allow_graceful=False)
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
