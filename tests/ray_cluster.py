"""Two nodes of Ray on this machine's own address, until standard input ends.

Prints the address and the process ids of the nodes.
"""

import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray.cluster_utils import Cluster

SMALL = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20}

cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
try:
    nodes = [cluster.head_node, cluster.add_node(**SMALL)]
    pids = [str(node.all_processes["raylet"][0].process.pid) for node in nodes]
    print(cluster.address, *pids, flush=True)
    sys.stdin.read()
finally:
    cluster.shutdown()
