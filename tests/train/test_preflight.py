"""The network's pre-flight here: what it reads, what it makes of what it is told, and ranks that never come."""

import dataclasses
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from raysr.errors import ConfigError, RunError
from raysr.ports import free_port
from raysr.train.network.addresses import (
    claimed_mbit,
    gloo_address,
    interface_of,
    is_loopback,
    sent_bytes,
    source_towards,
)
from raysr.train.network.findings import judge, judge_storage
from raysr.train.network.links import Links
from raysr.train.network.nccl_log import Transport, read_transport
from raysr.train.network.payload import like_a_transformer
from raysr.train.network.preflight import Order, preflight, preflight_of
from raysr.train.network.rdma import Host, Port
from raysr.train.network.report import Carried, Finding, Rank, Report
from raysr.train.network.roll import Member
from raysr.train.network.settings import NetworkConfig, of_environment
from raysr.train.network.storage import Sight, look
from tests.train.ranks import on_ranks
from tests.train.test_network import DIRECT, SOCKETS

PORT = Port("mlx5_0", 1, True, "Ethernet", 100.0, (3,), "eth2", 9000)
CARD = Host((PORT,), peer_memory=True, locked_bytes=None)
NONE = Host((), peer_memory=False, locked_bytes=None)


def a_rank(number: int, **other: Any) -> Rank:
    """Return a rank on a host of its own, with nothing that anyone could complain of."""
    rank = Rank(
        member=Member(number, f"h{number}", f"10.0.0.{number}"),
        interface="eth0",
        gloo_address=f"10.0.0.{number}",
        backend="gloo",
        versions={"torch": "2.14.1"},
        settings={},
        rdma=NONE,
    )
    return dataclasses.replace(rank, **other)


def a_sight(**other: Any) -> Carried:
    return dataclasses.replace(Carried("eth0", 1000, None), **other)


def some_links(ranks: int, mbit: float = 950, slow: tuple[int, int] | None = None) -> Links:
    pairs = {(a, b): mbit * 1e6 / 8 for a in range(ranks) for b in range(a + 1, ranks)}
    return Links(0.001, mbit * 1e6 / 8, pairs | ({slow: 1e6} if slow else {}))


def found(
    ranks: list[Rank], carried: list[Carried] | None = None, links: Links | None = None, rdma: bool = False
) -> dict[str, Finding]:
    """Return what is not right, by check."""
    seen = carried or [a_sight() for _ in ranks]
    findings = judge(ranks, seen, links or some_links(len(ranks)), rdma)
    return {finding.check: finding for finding in findings if finding.level != "ok"}


def test_a_group_in_order_is_told_to_be_so() -> None:
    ranks = [a_rank(0), a_rank(1)]
    findings = judge(ranks, [a_sight(), a_sight()], some_links(2), False)
    assert {finding.level for finding in findings} == {"ok"}
    report = Report(tuple(ranks), (a_sight(), a_sight()), some_links(2), tuple(findings))
    assert report.passed
    assert "950 Mbit/s over the whole group" in str(report)
    assert "no host has a card for it: sockets it is" in str(report)
    dumped = json.loads(json.dumps(report.dump()))
    assert dumped["pairs"] == [{"ranks": [0, 1], "bandwidth": 950e6 / 8}]
    assert dumped["ranks"][1]["host"] == "h1"


def test_other_versions_are_a_failure_and_other_settings_a_warning() -> None:
    other = a_rank(2, versions={"torch": "2.13.0"}, settings={"NCCL_IB_HCA": "mlx5_0"})
    complaints = found([a_rank(0), a_rank(1), other])
    assert complaints["versions"].level == "failure"
    assert complaints["versions"].found == (
        "torch 2.14.1 on h0 (10.0.0.0), h1 (10.0.0.1); torch 2.13.0 on h2 (10.0.0.2)"
    )
    assert complaints["settings"].level == "warning"
    assert complaints["settings"].found.endswith("NCCL_IB_HCA mlx5_0 on h2 (10.0.0.2)")
    named = [a_rank(n, settings={"GLOO_SOCKET_IFNAME": f"eth{n}"}) for n in (0, 1)]
    assert "settings" not in found(named)  # hosts may call their interfaces as they like


def test_a_name_that_stands_for_loopback_is_a_failure_unless_gloo_can_be_told_an_interface() -> None:
    deaf = a_rank(1, gloo_address="127.0.1.1", interface=None)
    complaint = found([a_rank(0), deaf])["address"]
    assert (complaint.level, complaint.where) == ("failure", "h1 (10.0.0.1)")
    assert complaint.mend.startswith("set GLOO_SOCKET_IFNAME there")
    assert "address" not in found([a_rank(0), dataclasses.replace(deaf, interface="eth0")])
    told = dataclasses.replace(deaf, settings={"GLOO_SOCKET_IFNAME": "eth0"})
    assert "address" not in found([a_rank(0), told])
    assert "address" not in found([a_rank(0), dataclasses.replace(deaf, backend="nccl")])


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"claimed_mbit": 10_000}, "eth0 carried 950 Mbit/s of the 10 Gbit/s that it claims"),
        ({"interface": "eth1"}, "eth1 carried 950 Mbit/s, while the host is reached over eth0"),
        ({"interface": None}, None),
        ({"claimed_mbit": None}, None),
    ],
)
def test_what_an_interface_carried_is_held_against_what_was_to_be_expected(
    seen: dict, said: str | None
) -> None:
    complaints = found([a_rank(0), a_rank(1)], [a_sight(), a_sight(**seen)])
    if said is None:
        assert "interface" not in complaints
    else:
        assert (complaints["interface"].found, complaints["interface"].where) == (said, "h1 (10.0.0.1)")


def test_a_slow_host_is_known_by_its_pairs() -> None:
    ranks = [a_rank(n) for n in range(4)]
    complaints = found(ranks, links=some_links(4, slow=(1, 3)))
    assert complaints["pair"].where == "h1 (10.0.0.1), h3 (10.0.0.3)"
    assert complaints["pair"].found == "8 Mbit/s, where most pairs have 950 Mbit/s"


def on_gpus(log: str, **other: Any) -> tuple[list[Rank], list[Carried]]:
    transport: Transport = read_transport(log.splitlines())
    ranks = [a_rank(n, backend="nccl", **other) for n in (0, 1)]
    return ranks, [a_sight(interface=None, transport=transport) for _ in ranks]


def test_where_rdma_is_required_sockets_are_a_failure_and_else_only_where_cards_are_idle() -> None:
    assert found([a_rank(0), a_rank(1)], rdma=True)["transport"].mend.startswith("RDMA needs GPUs and NCCL")
    ranks, carried = on_gpus(SOCKETS)
    assert "transport" not in found(ranks, carried)
    assert found(ranks, carried, rdma=True)["transport"].level == "failure"
    assert found(ranks, carried, rdma=True)["RDMA"].level == "failure"
    with_cards, _ = on_gpus(SOCKETS, rdma=CARD)
    assert found(with_cards, carried)["transport"].level == "warning"
    assert "no RDMA: NCCL uses Socket" in found(with_cards, carried)["transport"].found


def test_rdma_in_order_needs_a_traffic_class_and_the_same_mtu_on_all() -> None:
    ranks, carried = on_gpus(DIRECT, rdma=CARD, settings={"NCCL_IB_TC": "106"})
    assert found(ranks, carried, rdma=True) == {}
    unnamed, _ = on_gpus(DIRECT, rdma=CARD)
    assert "compare `mlnx_qos -i eth2`" in found(unnamed, carried)["lossless"].mend
    small = Host((dataclasses.replace(PORT, mtu=4200),), True, None)
    ranks[1] = dataclasses.replace(ranks[1], rdma=small)
    assert found(ranks, carried)["MTU"].found == "9000 on h0 (10.0.0.0); 4200 on h1 (10.0.0.1)"


def test_a_host_without_a_card_among_others_and_a_link_that_is_down_are_named() -> None:
    ranks, carried = on_gpus(DIRECT, rdma=CARD, settings={"NCCL_IB_TC": "106"})
    ranks[1] = dataclasses.replace(ranks[1], rdma=NONE)
    assert found(ranks, carried)["RDMA"].where == "h1 (10.0.0.1)"
    down = Host((dataclasses.replace(PORT, active=False),), True, None)
    ranks[1] = dataclasses.replace(ranks[1], rdma=down)
    assert "no port for RDMA has a link" in found(ranks, carried)["RDMA"].found
    silent = [dataclasses.replace(seen, transport=None) for seen in carried]
    assert found(ranks, silent, rdma=True)["transport"].found == "NCCL wrote no log"


def test_storage_that_is_not_shared_or_not_writable_is_a_failure_by_host() -> None:
    ranks = [a_rank(n) for n in range(3)]
    sights = [Sight(), Sight(unseen=(0, 2)), Sight(error="Read-only file system")]
    apart, refused = judge_storage(ranks, sights, Path("/runs"))
    assert (apart.level, apart.where) == ("failure", "h1 (10.0.0.1)")
    assert apart.found == "/runs is not that of h0 (10.0.0.0), h2 (10.0.0.2)"
    assert (refused.level, refused.found) == ("failure", "/runs: Read-only file system")
    assert [f.level for f in judge_storage(ranks, [Sight()] * 3, Path("/runs"))] == ["ok"]


def gathered(value: Any) -> list[Any]:
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def looked(folders: list[Path], looking: list[int]) -> list[Sight]:
    return look(folders[dist.get_rank()], dist.get_rank(), looking, gathered, patience=0.5)


def test_hosts_find_each_others_files_where_folders_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    common, own, blocked = tmp_path / "common" / "runs", tmp_path / "own", tmp_path / "file" / "runs"
    sights = on_ranks(4, looked, [common, common, own, blocked], [0, 1, 2, 3])
    assert sights[0] == sights[3]
    assert [sight.unseen for sight in sights[0]] == [(2,), (2,), (0, 1), ()]
    assert [sight.error for sight in sights[0]] == [None, None, None, "Not a directory"]
    assert not list(common.iterdir())
    assert on_ranks(3, looked, [common, own, common], [0, 2])[1] == [Sight()] * 3


def test_a_group_that_is_there_already_is_examined_as_it_is(tmp_path: Path) -> None:
    order = Order(storage=tmp_path, shapes=like_a_transformer(20e6))
    first, second = on_ranks(2, preflight, order)
    assert first == second
    assert first.passed
    assert [rank.member.rank for rank in first.ranks] == [0, 1]
    assert "one host: nothing crosses a network" in str(first)
    assert f"{tmp_path} can be written, and is the same for all" in str(first)
    assert first.recommendation is not None
    json.dumps(first.dump())


def test_a_rank_that_never_comes_is_named() -> None:
    order = Order(NetworkConfig(timeout_s=0.5))
    host = socket.gethostname()
    with pytest.raises(RunError, match=r"^rank 1, rank 2 did not come within 0\.5 s; here are rank 0\. "):
        preflight_of(order, 0, 3, "127.0.0.1", free_port(0))
    with pytest.raises(
        RunError, match=rf"^rank 1 on {host} found no rank 0 at localhost \(127\.0\.0\.1\), port "
    ):
        preflight_of(order, 1, 3, "localhost", free_port(0))
    with pytest.raises(RunError, match=r"found no rank 0 at nobody\.invalid, port 1, within"):
        preflight_of(order, 1, 3, "nobody.invalid", 1)
    assert not dist.is_initialized()


def test_without_torchruns_variables_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match="RANK is not set: start every rank by torchrun"):
        preflight(Order())


def test_settings_are_those_of_gloo_and_nccl_and_no_others() -> None:
    config = NetworkConfig(interface="eth0", require_rdma=True, variables={"NCCL_IB_TC": "106"})
    assert config.environment() == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_SOCKET_IFNAME": "=eth0",
        "NCCL_NET": "IB",
        "NCCL_IB_TC": "106",
    }
    assert NetworkConfig().environment() == {}
    assert of_environment({**config.environment(), "HOME": "/", "XNCCL_A": "1"}) == config.environment()
    with pytest.raises(ConfigError, match="LD_PRELOAD is no setting of NCCL or gloo"):
        NetworkConfig.parse({"variables": {"LD_PRELOAD": "x"}})


@pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2")
def test_interfaces_are_those_that_the_system_lists() -> None:
    listed = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    for interface in listed:
        for address in interface["addr_info"]:
            assert interface_of(address["local"]) == interface["ifname"].partition("@")[0]
    assert interface_of("203.0.113.7") is None
    assert set(sent_bytes()) == {interface["ifname"].partition("@")[0] for interface in listed}


def test_addresses_towards_hosts_are_own_ones() -> None:
    assert source_towards("127.0.0.1") == "127.0.0.1"
    assert is_loopback("127.0.1.1")
    assert is_loopback("::1")
    assert not is_loopback("fe80::1%eth0")
    assert interface_of(gloo_address()) or is_loopback(gloo_address())
    assert claimed_mbit("no-such-interface") is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = sent_bytes()["lo"]
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(bytes(100_000))
        assert sent_bytes()["lo"] - before >= 100_000
