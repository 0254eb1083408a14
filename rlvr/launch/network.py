"""Whether machines can meet: the network interface is checked before anybody waits for the others."""

import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from rlvr.errors import UserError

VARIABLE = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}


def local_interfaces() -> list[str]:
    """Names of this machine's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


def address_of_host() -> str:
    """What this machine's own name resolves to; empty where it does not resolve."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def choose_interface(environment: MutableMapping[str, str], interface: str | None) -> None:
    """`launch.interface` for both back ends.

    Raises:
        UserError: if a variable that is set says otherwise.
    """
    if interface is None:
        return
    for name in VARIABLE.values():
        if environment.setdefault(name, interface) != interface:
            raise UserError(
                f"launch.interface is {interface}, but {name} is {environment[name]}; leave one of them out"
            )


def _missing(back_end: str, chosen: str, interfaces: Sequence[str]) -> list[str]:
    """Names in the variable that no interface has; NCCL takes prefixes, `=` for whole names and `^` for all but."""
    if back_end == "nccl" and chosen.startswith("^"):
        return []
    exact = back_end == "gloo" or chosen.startswith("=")
    names = chosen.removeprefix("=").split(",")
    return [
        name
        for name in names
        if not any(found == name or (not exact and found.startswith(name)) for found in interfaces)
    ]


def check_network(
    environment: Mapping[str, str],
    nodes: int,
    back_end: str,
    interfaces: Callable[[], Sequence[str]] = local_interfaces,
    own_address: Callable[[], str] = address_of_host,
) -> None:
    """Refuse a rendezvous that could only time out.

    Without an interface gloo announces what the machine's own name resolves to; where that is the loopback device, the
    other machines connect to themselves until the time-out.

    Args:
        environment: with MASTER_ADDR and, if it is chosen, the interface.
        nodes: machines of the job; one needs no check beyond the interface's existence.
        back_end: `gloo` or `nccl`.
        interfaces: this machine's interfaces.
        own_address: what this machine's name resolves to, empty for nothing.

    Raises:
        UserError: naming the variable to set.
    """
    variable, chosen = VARIABLE[back_end], environment.get(VARIABLE[back_end], "")
    found = list(interfaces())
    missing = _missing(back_end, chosen, found) if chosen else []
    if missing:
        raise UserError(
            f"{variable} is {chosen}, but {socket.gethostname()} has no interface {missing[0]}; expected one of "
            f"{', '.join(found)}: set it, or launch.interface"
        )
    if nodes < 2:
        return
    address = environment.get("MASTER_ADDR", "")
    if address == "localhost" or address.startswith("127."):
        raise UserError(
            f"MASTER_ADDR is {address}, which every one of {nodes} nodes takes for itself; set it to the address "
            "of the node with rank 0"
        )
    own = own_address()
    if not chosen and (own == "" or own.startswith("127.")):
        others = [name for name in found if name != "lo"]
        raise UserError(
            f"{socket.gethostname()} resolves to {own or 'nothing'}, where the other {nodes - 1} nodes cannot reach "
            f"it; set launch.interface or {variable} to the interface between the nodes (here: {', '.join(others)})"
        )
