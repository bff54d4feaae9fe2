"""What is deployed is what servers, operators, Ray and raysr take: every field is held to their schemas."""

import copy
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from kustomization_schema import KUSTOMIZATION, REPLACEMENTS, VALUES
from launcher import check_launcher, launcher_files
from manifests import (
    BASE,
    ENVIRONMENT,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Path_,
    at,
    check_object,
    check_runtime_env,
    check_serve,
    fields,
    found,
    hold,
    parse,
    patched,
    read,
    walk,
)

from raysr.ipl.config import read_config
from raysr.train.network.settings import NetworkConfig

OWN_FILES = {"kustomization.yaml", "replacements.yaml", "values.yaml", "run.yaml", "training.yaml"}
OBJECTS = {
    f"{path.relative_to(KUBERNETES)}:{number}": (path, number)
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name not in OWN_FILES
    for number in range(len(read(path)))
}
# Whose keys are anybody's own choice; what ours are is looked at below.
FREE = {"labels", "annotations", "nodeSelector", "matchLabels", "requests", "limits", "stringData", "data"}
OF_LAUNCHERS = {"file_mounts", "available_node_types"}


def free(path: Path_) -> bool:
    """Say whether the keys of a mapping are no schema's business."""
    match path:
        case ("spec", "metadata") | ("spec", "jobTemplate", "metadata") | (*_, "clusterSelector"):
            return True
        case (*_, "workerGroupSpecs", int(), "resources"):
            return True
    return bool(path) and path[-1] in FREE


def misspelt(document: Any, skip: Callable[[Path_], bool]) -> Iterator[tuple[str, Any]]:
    """Yield copies of a document, each with a key misspelt of a mapping whose keys somebody has defined."""
    for path, value in walk(document):
        if isinstance(value, dict) and not skip(path):
            for key in value:
                wrong = copy.deepcopy(document)
                mapping = at(wrong, path)
                mapping[f"{key[:-1]}x{key[-1:]}"] = mapping.pop(key)
                yield ".".join(map(str, (*path, key))), wrong


def accepted(
    document: Any, check: Callable[[Any], object], skip: Callable[[Path_], bool] = free
) -> list[str]:
    """Return the keys that may be misspelt without the check noticing."""
    unnoticed = []
    for key, wrong in misspelt(document, skip):
        try:
            check(wrong)
        except Exception:
            continue
        unnoticed.append(key)
    return unnoticed


def document_of(name: str) -> Any:
    path, number = OBJECTS[name]
    return read(path)[number]


def named(kind: str, name: str) -> Any:
    """Return the object of base."""
    (one,) = (
        document
        for path in sorted(BASE.glob("*.yaml"))
        if path.name not in OWN_FILES
        for document in read(path)
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return one


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_one_that_its_server_takes(name: str) -> None:
    check_object(document_of(name))


@pytest.mark.parametrize("name", OBJECTS)
def test_a_misspelt_field_of_any_object_is_noticed(name: str) -> None:
    assert accepted(document_of(name), check_object) == []


@pytest.mark.parametrize("name", OBJECTS)
def test_a_field_of_another_type_is_noticed(name: str) -> None:
    document = document_of(name)
    for path, value in walk(document):
        if isinstance(value, dict | list) and value and path:
            wrong = copy.deepcopy(document)
            at(wrong, path[:-1])[path[-1]] = 7
            with pytest.raises(Exception, match=r".+"):
                check_object(wrong)


@pytest.mark.parametrize("name", launcher_files())
def test_ray_up_takes_its_files(name: str) -> None:
    (document,) = read(launcher_files()[name])
    check_launcher(document)


@pytest.mark.parametrize("name", launcher_files())
def test_a_misspelt_field_of_a_launcher_file_is_noticed(name: str) -> None:
    (document,) = read(launcher_files()[name])
    unnoticed = accepted(document, check_launcher, lambda path: path[-1:] and path[-1] in OF_LAUNCHERS)
    assert unnoticed == []


@pytest.mark.parametrize(
    ("kind", "name", "way", "check"),
    [
        ("RayService", "endpoint", ("spec", "serveConfigV2"), check_serve),
        ("RayJob", "cycle", ("spec", "runtimeEnvYAML"), check_runtime_env),
        ("RayCronJob", "cycles", ("spec", "jobTemplate", "runtimeEnvYAML"), check_runtime_env),
    ],
)
def test_what_is_yaml_within_yaml_is_checked_too(kind: str, name: str, way: Path_, check: Any) -> None:
    text = at(named(kind, name), way)
    check(text)
    assert accepted(parse(text), lambda wrong: check(yaml.safe_dump(wrong)), lambda path: False) == []


def test_the_endpoint_asks_for_keys_that_are_mounted_and_follows_the_pool_of_the_run() -> None:
    service = named("RayService", "endpoint")
    config = check_serve(service["spec"]["serveConfigV2"])
    run = parse((BASE / "run.yaml").read_text(encoding="utf-8"))["run"]
    assert config.pool == f"{run['dir']}/pool"
    (serving,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = serving["template"]["spec"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert config.keys is not None
    assert str(Path(config.keys).parent) in mounts
    assert Path(config.keys).name in named("Secret", "raysr-keys")["stringData"]
    assert config.grace_seconds < pod["terminationGracePeriodSeconds"]
    assert config.cpus_per_replica <= int(serving["rayStartParams"]["num-cpus"])
    assert config.max_replicas == serving["maxReplicas"]


def test_the_run_is_one_that_raysr_takes(tmp_path: Path) -> None:
    read_config(BASE / "run.yaml", [])
    document = parse((BASE / "run.yaml").read_text(encoding="utf-8"))

    def check(wrong: Any) -> None:
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(wrong), encoding="utf-8")
        read_config(file, [])

    assert accepted(document, check, lambda path: False) == []


def test_every_version_of_ray_is_the_one_that_raysr_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = next(text for text in project["dependencies"] if text.startswith("ray["))
    said = [
        value for path in OBJECTS for way, value in walk(document_of(path)) if way[-1:] == ("rayVersion",)
    ]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    said += re.findall(r"ARG RAY=(\S+)", dockerfile)
    assert len(said) == 3
    assert set(said) == {ray.__version__}
    assert asked.split(">=")[1].split(",")[0] == ray.__version__.rpartition(".")[0]


def test_the_image_copies_what_is_there_and_runs_as_nobody_in_particular() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    let_in = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.M):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in let_in
    assert re.findall(r"^USER (\S+)", dockerfile, re.M) == ["1000"]
    users = {
        value for name in OBJECTS for path, value in walk(document_of(name)) if path[-1:] == ("runAsUser",)
    }
    assert users == {1000}


def kustomizations() -> dict[str, Path]:
    return {folder.name: folder for folder in (BASE, *OVERLAYS.values())}


@pytest.mark.parametrize("name", kustomizations())
def test_a_kustomization_names_what_is_there(name: str) -> None:
    folder = kustomizations()[name]
    (document,) = read(folder / "kustomization.yaml")
    hold(document, KUSTOMIZATION)
    assert accepted(document, lambda wrong: hold(wrong, KUSTOMIZATION)) == []
    generators = document.get("configMapGenerator", [])
    patches = [patch["path"] for patch in document.get("patches", []) if "path" in patch]
    for file in [*document["resources"], *patches, *(f for g in generators for f in g.get("files", []))]:
        assert (folder / file).exists()
    listed = {*document["resources"], *patches, "kustomization.yaml"}
    assert {path.name for path in folder.glob("*.yaml")} <= listed | {"replacements.yaml", "run.yaml"}
    for literal in (text for generator in generators for text in generator.get("literals", [])):
        assert literal.partition("=")[0] in ENVIRONMENT


def test_each_value_is_carried_to_where_it_is_used() -> None:
    (values,) = read(BASE / "values.yaml")
    (replacements,) = read(BASE / "replacements.yaml")
    hold(values, VALUES)
    hold(replacements, REPLACEMENTS)
    assert accepted(replacements, lambda wrong: hold(wrong, REPLACEMENTS)) == []
    carried = set()
    for replacement in replacements:
        way = replacement["source"]["fieldPath"]
        carried.add(way)
        (value,) = found(values, fields(way))
        for target in replacement["targets"]:
            document = named(target["select"]["kind"], target["select"]["name"])
            for path in target["fieldPaths"]:
                assert {str(there) for there in found(document, fields(path))} == {value}
    assert carried == {f"data.{key}" for key in values["data"]}
    images = {value for name in OBJECTS for path, value in walk(document_of(name)) if _is_ours(path)}
    assert images == {values["data"]["image"]}


def _is_ours(path: Path_) -> bool:
    return path[-1:] == ("image",) and "containers" in path


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_gives_training_the_fast_network_that_it_defines(name: str) -> None:
    folder = OVERLAYS[name]
    (operations,) = read(folder / "training.yaml")
    cluster = patched(named("RayCluster", "cycles"), operations)
    check_object(cluster)
    training = next(g for g in cluster["spec"]["workerGroupSpecs"] if g["groupName"] == "training")
    (container,) = training["template"]["spec"]["containers"]
    assert "IPC_LOCK" in container["securityContext"]["capabilities"]["add"]
    others = [g for g in cluster["spec"]["workerGroupSpecs"] if g["groupName"] != "training"]
    assert "IPC_LOCK" not in str(others)

    defined = {document["kind"]: document for document in read(folder / "network-operator.yaml")}
    kind, prefix = ("SriovNetwork", "nvidia.com") if name == "sriov" else ("MacvlanNetwork", "rdma")
    network = defined[kind]
    assert network["spec"]["networkNamespace"] == named("Namespace", "raysr")["metadata"]["name"]
    annotations = training["template"]["metadata"]["annotations"]
    assert annotations["k8s.v1.cni.cncf.io/networks"] == network["metadata"]["name"]
    assert defined["IPPool"]["metadata"]["name"] in network["spec"]["ipam"]
    (device,) = (key for key in container["resources"]["limits"] if key.startswith(prefix) and "rdma" in key)
    resource = device.partition("/")[2]
    if name == "sriov":
        assert network["spec"]["resourceName"] == resource
        assert defined["SriovNetworkNodePolicy"]["spec"]["resourceName"] == resource
    else:
        assert f'"{resource}"' in defined["NicClusterPolicy"]["spec"]["rdmaSharedDevicePlugin"]["config"]

    (kustomization,) = read(folder / "kustomization.yaml")
    (fabric,) = kustomization["configMapGenerator"]
    assert container["envFrom"] == [{"configMapRef": {"name": fabric["name"]}}]
    assert at(cluster, ("metadata", "name")) == kustomization["patches"][0]["target"]["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_misspelt_field_of_a_patch_is_noticed(name: str) -> None:
    (operations,) = read(OVERLAYS[name] / "training.yaml")
    cluster = named("RayCluster", "cycles")

    def open_values(path: Path_) -> bool:
        return path[1:] == ("value",) and "annotations" in operations[path[0]]["path"]

    assert accepted(operations, lambda wrong: check_object(patched(cluster, wrong)), open_values) == []
    moved = copy.deepcopy(cluster)
    moved["spec"]["workerGroupSpecs"].reverse()
    moved["spec"]["workerGroupSpecs"].insert(0, moved["spec"]["workerGroupSpecs"].pop())
    with pytest.raises(ValueError, match="groupName"):
        patched(moved, operations)


def test_selectors_select_pods_of_ours() -> None:
    pods = [
        value["labels"]
        for name in OBJECTS
        for path, value in walk(document_of(name))
        if path[-1:] == ("metadata",) and len(path) > 1 and "labels" in value
    ]
    assert len(pods) == 8
    known = [
        *pods,
        {"raysr.io/role": "client"},
        {"app.kubernetes.io/name": "kuberay-operator"},
    ]
    for name in OBJECTS:
        for path, value in walk(document_of(name)):
            if path[-1:] == ("matchLabels",) and "namespaceSelector" not in path:
                assert any(value.items() <= labels.items() for labels in known), (name, path, value)
            if path[-1:] == ("clusterSelector",):
                assert value == {"ray.io/cluster": named("RayCluster", "cycles")["metadata"]["name"]}


def test_what_is_mounted_and_named_is_there() -> None:
    for name in OBJECTS:
        for _, value in walk(document_of(name)):
            if isinstance(value, dict) and "containers" in value:
                volumes = {volume["name"] for volume in value.get("volumes", [])}
                mounted = {m["name"] for c in value["containers"] for m in c.get("volumeMounts", [])}
                assert mounted == volumes
                named("ServiceAccount", value["serviceAccountName"])
                for volume in value.get("volumes", []):
                    if "persistentVolumeClaim" in volume:
                        named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                    if "secret" in volume:
                        named("Secret", volume["secret"]["secretName"])
            if isinstance(value, dict) and "secretName" in value and "mode" in value:
                assert "auth_token" in named("Secret", value["secretName"])["stringData"]
    backend = found(named("Ingress", "raysr"), fields("spec.rules.0.http.paths.0.backend.service.name"))
    assert backend == [f"{named('RayService', 'endpoint')['metadata']['name']}-serve-svc"]


def test_settings_on_the_pages_are_ones_that_raysr_takes() -> None:
    pages = {
        name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("kubernetes.md", "fabric.md")
    }
    blocks = {name: re.findall(r"```yaml\n(.+?)```", page, re.S) for name, page in pages.items()}
    (shared,) = blocks["kubernetes.md"]
    assert check_serve(shared).cpus_per_replica == 0
    (network,) = blocks["fabric.md"]
    NetworkConfig.parse(parse(network)["trainer"]["network"], "docs/fabric.md")


def test_no_secret_is_in_the_repository() -> None:
    keys = named("Secret", "raysr-keys")["stringData"]["keys.txt"].splitlines()
    assert all(line.startswith("#") for line in keys)
    assert named("Secret", "raysr-token")["stringData"] == {"auth_token": ""}
