"""The section `launch` of a configuration: how many processes a run has, and how they are started."""

from dataclasses import dataclass

from rlvr.errors import UserError

KINDS = ("local", "slurm")
LAST_PORT = 65535


@dataclass
class LaunchSection:
    """How a run's processes are started. Sizes of the run are global: more processes change no number of it.

    Attributes:
        kind: `local` starts processes here, `slurm` submits a job that starts them.
        processes: on each node, one for each GPU; null for one, or for those that torchrun or srun have started.
        nodes: machines; with `local`, start the same command on each with its own `node_rank`.
        timeout_seconds: how long a process waits for the others, before it ends the run.
        max_restarts: after a crash, start again from the newest checkpoint; so often in a row without a newer one.
        interface: network interface between nodes, e.g. `eth0`: sets GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.
        node_rank: of this machine, from 0; for `local` on several nodes.
        main_address: of the machine with `node_rank` 0; for `local` on several nodes.
        main_port: a free port there; null for any free one on a single node.
        site: a YAML file with what a Slurm cluster wants: `partition`, `account`, `time`, `gpus`, `sbatch`, `setup`.
        submit: hand the Slurm script to `sbatch`; false only writes it.
    """

    kind: str = "local"
    processes: int | None = None
    nodes: int = 1
    timeout_seconds: int = 600
    max_restarts: int = 0
    interface: str | None = None
    node_rank: int | None = None
    main_address: str | None = None
    main_port: int | None = None
    site: str = "launch_site.yaml"
    submit: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"launch.kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        least = {"processes": 1, "nodes": 1, "timeout_seconds": 1, "max_restarts": 0, "node_rank": 0, "main_port": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(f"launch.{name} is {value}; expected a whole number of at least {bound}")
        if self.main_port is not None and self.main_port > LAST_PORT:
            raise UserError(f"launch.main_port is {self.main_port}; expected a port from 1 to {LAST_PORT}, e.g. 29500")
        if self.node_rank is not None and self.node_rank >= self.nodes:
            raise UserError(
                f"launch.node_rank is {self.node_rank} of launch.nodes={self.nodes}; expected 0 to {self.nodes - 1}"
            )

    @property
    def ranks(self) -> int | None:
        """Processes on all nodes that are asked for; None where nobody asked."""
        if self.processes is None and self.nodes == 1:
            return None
        return (self.processes or 1) * self.nodes
