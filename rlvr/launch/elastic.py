"""torch's elastic launcher as a quiet process: `python -m rlvr.launch.elastic PLAN.json`, started by `rlvr train`.

`torchrun` itself prints a traceback of its own for every rank that fails; the ranks have said why already.
"""

import json
import logging
import sys
from pathlib import Path

from rlvr.launch.status import CRASHED, DONE, follow_parent


def main(plan: Path) -> int:
    """Start the ranks of this node and wait for them; 0 if all ended well, else 1."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    values = json.loads(plan.read_text())
    follow_parent()
    config = LaunchConfig(
        min_nodes=values["nodes"],
        max_nodes=values["nodes"],
        nproc_per_node=values["processes"],
        run_id=values["name"],
        rdzv_backend="static",
        rdzv_endpoint=f"{values['address']}:{values['port']}",
        rdzv_configs={"rank": values["node_rank"], "timeout": values["timeout_seconds"]},
        max_restarts=0,  # restarts are the launcher's, which knows checkpoints
        logs_specs=DefaultLogsSpecs(log_dir=str(plan.parent / "elastic")),
        signals_to_handle="SIGTERM,SIGINT",
    )
    try:
        elastic_launch(config, sys.executable)(*values["command"])
    except (ChildFailedError, SignalException):
        return CRASHED
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
