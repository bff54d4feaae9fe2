"""The network's pre-flight: NCCL's log as people have published it, the kernel's files, and measured links."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysr.train.network.links import Links, measure, tournament
from raysr.train.network.nccl_log import Device, read_transport
from raysr.train.network.rdma import Host, Port, read_host
from tests.train.ranks import on_ranks

# as published in github.com/NVIDIA/nccl-tests/issues/185
ROCE = """\
dgxh100-4:460770:460770 [0] NCCL INFO Bootstrap : Using enp220s0np0:11.1.128.136<0>
dgxh100-4:460770:460770 [0] NCCL INFO cudaDriverVersion 12000
NCCL version 2.19.3+cuda12.3
dgxh100-4:460770:460842 [0] NCCL INFO NET/IB : Using [0]mlx5_10:1/RoCE [1]mlx5_11:1/RoCE [RO]; \
OOB enp220s0np0:11.1.128.136<0>
dgxh100-4:460770:460842 [0] NCCL INFO Using non-device net plugin version 0
dgxh100-4:460770:460842 [0] NCCL INFO Using network IB
"""
# as published in github.com/Mellanox/nv_peer_memory/issues/56
INFINIBAND = """\
master_node:24570:24907 [0] NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal implementation
master_node:24570:24907 [0] NCCL INFO NCCL_IB_DISABLE set by environment to 0.
master_node:24570:24907 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB ; OOB ib0:192.168.11.1<0>
NCCL version 2.5.6+cuda10.0
"""
# as expected in github.com/siderolabs/docs/issues/566
DIRECT = """\
nccl-test:179:179 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB [2]mlx5_2:1/IB [3]mlx5_3:1/IB [RO]; \
OOB eth0:10.0.0.1<0>
nccl-test:179:179 [0] NCCL INFO Using network IB  # ← KEY LINE!
nccl-test:179:179 [0] NCCL INFO NCCL_IB_HCA set to mlx5_0,mlx5_1,mlx5_2,mlx5_3
nccl-test:179:179 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0/GDRDMA  # ← IB + GPUDirect!
nccl-test:179:179 [0] NCCL INFO Channel 00/0 : 8[0] -> 0[0] [receive] via NET/IB/0/GDRDMA
"""
# as published in github.com/NVIDIA/nccl/issues/226
SOCKETS = """\
ip-172-31-12-21:45361:45361 [0] NCCL INFO NET/IB : No device found.
ip-172-31-12-210:45305:45305 [0] NCCL INFO NET/Socket : Using [0]ens3:172.31.12.210<0>
ip-172-31-8-153:45343:45343 [0] NCCL INFO NET/Plugin : No plugin found (libnccl-net.so).
"""
# as published in github.com/NVIDIA/nccl/issues/367
RING = """\
c6ad99331184:117277:117384 [0] NCCL INFO Ring 00 : 1[0] -> 2[0] via direct shared memory
c6ad99331184:117277:117384 [0] NCCL INFO Ring 00 : 15 -> 0 [receive] via NET/Socket/0
"""


def test_roce_is_told_from_infiniband_and_named_by_its_cards() -> None:
    roce, infiniband = read_transport(ROCE.splitlines()), read_transport(INFINIBAND.splitlines())
    assert roce.devices == (Device("mlx5_10", 1, "RoCE"), Device("mlx5_11", 1, "RoCE"))
    assert (roce.network, roce.interface, roce.is_rdma, roce.is_direct) == ("IB", "enp220s0np0", True, False)
    assert str(roce) == "RDMA by RoCE on mlx5_10:1, mlx5_11:1"
    assert infiniband.devices == (Device("mlx5_0", 1, "IB"),)
    assert infiniband.interface == "ib0"


def test_gpudirect_is_what_every_channel_says_of_itself() -> None:
    direct = read_transport(DIRECT.splitlines())
    assert direct.channels == {("IB", True): 2}
    assert direct.is_direct
    assert str(direct).endswith("mlx5_3:1, with GPUDirect")
    staged = read_transport([*DIRECT.splitlines(), DIRECT.splitlines()[-1].replace("/GDRDMA", "")])
    assert staged.is_rdma
    assert not staged.is_direct
    assert "without GPUDirect: see nvidia_peermem" in str(staged)


@pytest.mark.parametrize("log", [SOCKETS, RING])
def test_sockets_are_no_rdma_and_what_to_set_is_said(log: str) -> None:
    found = read_transport(log.splitlines())
    assert not found.is_rdma
    assert str(found).startswith("no RDMA: NCCL uses Socket")
    assert "NCCL_NET=IB makes it fail instead" in str(found)
    assert ("found no device" in str(found)) == (log == SOCKETS)


def test_one_rank_on_sockets_spoils_rdma_for_all() -> None:
    assert not read_transport([*DIRECT.splitlines(), *RING.splitlines()]).is_rdma


def test_a_log_that_names_no_network_says_so() -> None:
    assert "names no network" in str(read_transport(["something else", ""]))


def a_card(
    sys: Path, link: str = "Ethernet", state: str = "4: ACTIVE", kind: str = "RoCE v2", mtu: int = 9000
) -> None:
    """Write what the kernel shows of a port with one address, as on a host with a ConnectX card."""
    port = sys / "class" / "infiniband" / "mlx5_0" / "ports" / "1"
    for folder in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
        (port / folder).mkdir(parents=True)
    (port / "state").write_text(f"{state}\n")
    (port / "link_layer").write_text(f"{link}\n")
    (port / "rate").write_text("100 Gb/sec (4X EDR)\n")
    addresses = [
        "fe80:0000:0000:0000:0a00:27ff:fe00:0001",
        "0000:0000:0000:0000:0000:ffff:0a4e:0001",
        ":".join(["0000"] * 8),
    ]
    for index, address in enumerate(addresses):
        (port / "gids" / str(index)).write_text(f"{address}\n")
    for index in (0, 1):  # of an empty place the kernel refuses to say more
        (port / "gid_attrs" / "types" / str(index)).write_text(f"{kind}\n")
        (port / "gid_attrs" / "ndevs" / str(index)).write_text("eth2\n")
    (sys / "class" / "net" / "eth2").mkdir(parents=True)
    (sys / "class" / "net" / "eth2" / "mtu").write_text(f"{mtu}\n")


def test_a_host_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    assert read_host(tmp_path).ports == ()
    assert read_host(tmp_path).problems() == []
    a_card(tmp_path)
    (tmp_path / "module" / "nvidia_peermem").mkdir(parents=True)
    host = read_host(tmp_path)
    assert host.ports == (Port("mlx5_0", 1, True, "Ethernet", 100.0, (1,), "eth2", 9000),)
    assert Host(host.ports, host.peer_memory, None).problems() == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"state": "1: DOWN"}, "mlx5_0:1: its link is down"),
        ({"kind": "IB/RoCE v1"}, "no RoCE v2 address over IPv4; give eth2 one"),
        ({"mtu": 1500}, "the MTU of eth2 is 1500"),
    ],
)
def test_what_is_missing_for_roce_is_named_with_what_would_be_right(
    tmp_path: Path, how: dict, said: str
) -> None:
    a_card(tmp_path, **how)
    problems = Host(read_host(tmp_path).ports, False, 64 << 10).problems()
    assert said in problems[0]
    assert any("may lock 0 MiB" in p for p in problems)
    assert any("nvidia_peermem is not loaded" in p for p in problems)


def test_this_host_can_be_read() -> None:
    assert isinstance(read_host().problems(), list)


@given(st.lists(st.integers(0, 99), unique=True, max_size=12))
def test_in_a_tournament_each_two_meet_once_and_nobody_plays_twice_a_round(players: list[int]) -> None:
    rounds = tournament(players)
    met = [pair for pairs in rounds for pair in pairs]
    assert sorted(met) == sorted((a, b) for a in players for b in players if a < b)
    assert all(len({p for pair in pairs for p in pair}) == 2 * len(pairs) for pairs in rounds)
    assert len(rounds) <= max(len(players), 1)


def test_links_are_measured_alike_on_all_ranks() -> None:
    found: list[Links] = on_ranks(3, measure, torch.device("cpu"), None, 0.01)
    assert found[0] == found[1] == found[2]
    assert set(found[0].pairs) == {(0, 1), (0, 2), (1, 2)}
    assert found[0].slowest_pair in found[0].pairs
    assert min(found[0].pairs.values()) > 1e6
    assert found[0].bandwidth > 1e6
    assert 0 < found[0].latency < 1


def test_one_rank_alone_has_no_links() -> None:
    [found] = on_ranks(1, measure, torch.device("cpu"), None, 0.01)
    assert found.pairs == {}
    assert found.bandwidth == float("inf")
    assert found.slowest_pair is None
