"""The network between nodes, checked before anybody waits."""

import pytest

from rlvr.errors import UserError
from rlvr.launch.network import check_network, choose_interface, local_interfaces

INTERFACES = ["lo", "eth0", "ib0", "ib1"]
MAIN = {"MASTER_ADDR": "10.0.0.1"}


def check(environment: dict[str, str], nodes: int = 2, back_end: str = "gloo", own: str = "10.0.0.2") -> None:
    check_network(environment, nodes, back_end, lambda: INTERFACES, lambda: own)


@pytest.mark.parametrize(
    ("environment", "back_end"),
    [
        (MAIN, "gloo"),
        ({**MAIN, "GLOO_SOCKET_IFNAME": "eth0"}, "gloo"),
        ({**MAIN, "GLOO_SOCKET_IFNAME": "ib0,ib1"}, "gloo"),
        ({**MAIN, "NCCL_SOCKET_IFNAME": "ib"}, "nccl"),  # NCCL takes prefixes
        ({**MAIN, "NCCL_SOCKET_IFNAME": "=ib1"}, "nccl"),
        ({**MAIN, "NCCL_SOCKET_IFNAME": "^docker,lo"}, "nccl"),
        ({**MAIN, "GLOO_SOCKET_IFNAME": "nope"}, "nccl"),  # the other back end's
    ],
)
def test_what_can_meet(environment: dict[str, str], back_end: str) -> None:
    check(environment, back_end=back_end)


@pytest.mark.parametrize(
    ("environment", "back_end", "missing"),
    [
        ({"GLOO_SOCKET_IFNAME": "nope"}, "gloo", "nope"),
        ({"GLOO_SOCKET_IFNAME": "ib"}, "gloo", "ib"),  # gloo takes whole names
        ({"GLOO_SOCKET_IFNAME": "ib0,ib2"}, "gloo", "ib2"),
        ({"NCCL_SOCKET_IFNAME": "eno"}, "nccl", "eno"),
        ({"NCCL_SOCKET_IFNAME": "=ib"}, "nccl", "ib"),
    ],
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_an_interface_that_is_not_there(environment: dict[str, str], back_end: str, missing: str, nodes: int) -> None:
    with pytest.raises(UserError, match=f"has no interface {missing}; expected one of lo, eth0, ib0, ib1"):
        check({**MAIN, **environment}, nodes, back_end)


@pytest.mark.parametrize("own", ["127.0.0.1", "127.0.1.1", ""])
def test_a_host_name_that_leads_back_to_itself(own: str) -> None:
    with pytest.raises(UserError, match=r"set launch.interface or GLOO_SOCKET_IFNAME .*\(here: eth0, ib0, ib1\)"):
        check(MAIN, own=own)
    check({**MAIN, "GLOO_SOCKET_IFNAME": "eth0"}, own=own)
    check({}, nodes=1, own=own)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_a_meeting_place_that_every_node_takes_for_itself(address: str) -> None:
    with pytest.raises(UserError, match=f"MASTER_ADDR is {address}, which every one of 3 nodes takes for itself"):
        check({"MASTER_ADDR": address}, nodes=3)


def test_one_setting_for_both_back_ends() -> None:
    environment = {"NCCL_SOCKET_IFNAME": "ib0"}
    choose_interface(environment, None)
    assert environment == {"NCCL_SOCKET_IFNAME": "ib0"}
    choose_interface(environment, "ib0")
    assert environment == {"NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    with pytest.raises(UserError, match=r"launch\.interface is eth0, but GLOO_SOCKET_IFNAME is ib0"):
        choose_interface(environment, "eth0")


def test_this_machine_has_a_loopback_device() -> None:
    assert "lo" in local_interfaces()
