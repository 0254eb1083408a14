"""torch's elastic launcher as a quiet process: `python -m rlvr.launch.elastic PLAN.json`, started by `rlvr train`.

`torchrun` itself prints a traceback of its own for every rank that fails; the ranks have said why already.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr.launch.status import CRASHED, DONE, REFUSED, End, follow_parent, leave_end


def _not_met(values: Mapping[str, Any], error: RuntimeError) -> str:
    reason = " ".join(str(error).splitlines()[0].split())
    return (
        f"the {values['nodes']} nodes did not meet at {values['address']}:{values['port']} within "
        f"launch.timeout_seconds={values['timeout_seconds']}: {reason}; see that the command runs on all of them and "
        "that the port is free and reachable"
    )


def main(plan: Path) -> int:
    """Start the ranks of this node and wait for them; 0 if all ended well, 2 if one was refused, else 1."""
    quiet = "TORCH_CPP_LOG_LEVEL" not in os.environ
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read when torch is loaded; the ranks keep their warnings
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if quiet:
        del os.environ["TORCH_CPP_LOG_LEVEL"]
    logging.disable(logging.ERROR)
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
    except ChildFailedError as error:  # a rank on a full disk can say no more than its exit code
        return REFUSED if any(one.exitcode == REFUSED for one in error.failures.values()) else CRASHED
    except SignalException:
        return CRASHED
    except RuntimeError as error:  # of the rendezvous: no rank was ever started
        leave_end(plan.parent, values["node_rank"] * values["processes"], End(REFUSED, _not_met(values, error)))
        return REFUSED
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
