"""What deploys raysr, read and checked strictly, as a server with all operators would, but offline."""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kuberay_schema
import kubernetes_validate
import network_operator_schema
import yaml
from ray.runtime_env import RuntimeEnv
from ray.scripts.scripts import start
from ray.serve.schema import ServeDeploySchema
from referencing import Registry, Resource

from raysr.cluster import SETTINGS, worker_environment
from raysr.ipl.folder import STORAGE
from raysr.serving.deployment import Endpoint, application
from raysr.serving.settings import ServingConfig, UserConfig

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = {name: KUBERNETES / "overlays" / name for name in ("sriov", "macvlan")}
CORE = "kubernetes"
NCCL = {
    *("NCCL_SOCKET_IFNAME", "NCCL_NET", "NCCL_IB_HCA", "NCCL_IB_TC", "NCCL_IB_SL", "NCCL_IB_GID_INDEX"),
    *("NCCL_NET_GDR_LEVEL", "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE", "GLOO_SOCKET_IFNAME"),
}
ENVIRONMENT = {STORAGE, "PYTHONUNBUFFERED", *SETTINGS, *NCCL}
RAY_START = {option.lstrip("-") for parameter in start.params for option in parameter.opts}

Document = dict[str, Any]
Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            raise ValueError(f"a key is there twice {node.start_mark}")
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """Return the one document of a YAML text."""
    return yaml.load(text, _Loader)


def read(path: Path) -> list[Document]:
    """Return the documents of a YAML file, each with nothing of it shared within."""
    documents = yaml.load_all(path.read_text(encoding="utf-8"), _Loader)
    return [json.loads(json.dumps(document)) for document in documents]


@cache
def versions() -> tuple[str, ...]:
    """Return the versions of Kubernetes that manifests are held to: the oldest, and the newest known."""
    return "1.30", kubernetes_validate.latest_version()


@cache
def registry() -> Any:
    """Return Kubernetes' own types, which allow no fields but those named, for schemas to refer to."""
    folder = f"kubernetes-json-schema/v{kubernetes_validate.latest_version()}-local-strict"
    text = files(kubernetes_validate).joinpath(folder, "_definitions.json").read_text(encoding="utf-8")
    definitions = {key: value for key, value in json.loads(text).items() if key != "$id"}
    return Registry().with_resource(CORE, Resource.from_contents(definitions)).crawl()


@cache
def custom_kinds() -> Mapping[tuple[str, str], Document]:
    """Return the schemas of what operators bring."""
    return {**kuberay_schema.kinds(CORE), **network_operator_schema.kinds(CORE)}


def hold(data: Any, schema: Document) -> None:
    """Raise ValidationError where ``data`` is not of a schema, which may refer to Kubernetes' types."""
    jsonschema.Draft202012Validator(schema, registry=registry()).validate(data)


def check_object(document: Document) -> None:
    """Raise an exception where a Kubernetes API server, an operator, Ray or raysr would refuse a document."""
    kind = document["apiVersion"], document["kind"]
    if kind in custom_kinds():
        hold(document, custom_kinds()[kind])
    else:
        for version in versions():
            kubernetes_validate.validate(document, version, strict=True)
    if not document["metadata"].get("name"):
        raise ValueError("an object has a name")
    for path, value in walk(document):
        _check_inner(path, value)
    if kind[1] == "RayService":
        check_serve(document["spec"]["serveConfigV2"])


def _check_inner(path: Path_, value: Any) -> None:
    """Check what is text to Kubernetes and something more to others."""
    match path:
        case (*_, "runtimeEnvYAML"):
            check_runtime_env(value)
        case (*_, "rayStartParams"):
            _known(value, RAY_START, "options of `ray start`")
        case (*_, "env", int()):
            _known([value["name"]], ENVIRONMENT, "environment variables")
        case ("spec", "ipam"):
            hold(json.loads(value), network_operator_schema.IPAM)
        case ("spec", "rdmaSharedDevicePlugin", "config"):
            hold(json.loads(value), network_operator_schema.DEVICE_PLUGIN)


def _known(names: Sequence[str] | Mapping[str, Any], known: set[str], what: str) -> None:
    if strange := set(names) - known:
        raise ValueError(f"no {what}: {sorted(strange)}")


def check_serve(text: str) -> ServingConfig:
    """Check Serve's configuration of our one application, and return the application's own."""
    data = parse(text)
    hold(data, _closed(ServeDeploySchema.model_json_schema()))
    (app,) = ServeDeploySchema.model_validate(data).applications
    if app.import_path != "serve.app:build":
        raise ValueError(f"{app.import_path} is not ours")
    config = ServingConfig.from_arguments(app.args)
    built = application(config)
    for deployment in data["applications"][0].get("deployments", []):
        if deployment["name"] != built._bound_deployment.name:
            raise ValueError(f"{deployment['name']} is not {Endpoint}")
        UserConfig.parse(deployment.get("user_config", {}), "user_config")
    return config


def _closed(schema: Any) -> Any:
    """Return a schema that allows no fields but those it names: Ray's own allows any in deployments."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed["additionalProperties"] = False
    return closed


def check_runtime_env(text: str) -> None:
    """Check a job's runtime environment: Ray takes any key, and ends where it contradicts raysr's own."""
    data = parse(text)
    _known(data, RuntimeEnv.known_fields, "fields of a runtime environment")
    RuntimeEnv(**data)
    variables = data.get("env_vars", {})
    _known(variables, ENVIRONMENT, "environment variables")
    if both := set(variables) & set(worker_environment()):
        raise ValueError(f"Ray refuses two values of {both}, and raysr sets them for its workers")


def walk(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield every value of a document with the way to it, the document itself first."""
    yield path, value
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from walk(child, (*path, key))


def at(document: Any, path: Path_) -> Any:
    """Return the value at the end of a way."""
    for key in path:
        document = document[key]
    return document


def fields(path: str) -> list[str]:
    """Split a field path of kustomize's replacements: ``a.[name=b].c`` has three parts."""
    return [part.strip("[]") for part in re.findall(r"\[[^]]+\]|[^.\[\]]+", path)]


def found(document: Any, parts: Sequence[str]) -> list[Any]:
    """Return the values that a field path leads to.

    Raises:
        LookupError: it leads nowhere.
    """
    if not parts:
        return [document]
    part, *rest = parts
    if isinstance(document, list):
        if part == "*":
            chosen = document
        elif "=" in part:
            key, _, value = part.partition("=")
            chosen = [item for item in document if str(item[key]) == value]
        else:
            chosen = [document[int(part)]]
        if not chosen:
            raise LookupError(f"nothing has {part}")
        return [value for item in chosen for value in found(item, rest)]
    return found(document[part], rest)


OPERATION = {
    "type": "object",
    "properties": {"op": {"enum": ["add", "replace", "test"]}, "path": {"pattern": "^/"}, "value": {}},
    "required": ["op", "path", "value"],
    "additionalProperties": False,
}


def patched(document: Document, operations: Sequence[Document]) -> Document:
    """Return a document after a JSON patch (RFC 6902) of additions, replacements and tests.

    Raises:
        LookupError: an operation leads nowhere.
        ValueError: a test fails.
    """
    result = copy.deepcopy(document)
    for operation in operations:
        hold(operation, OPERATION)
        *way, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
        place = at(result, tuple(int(part) if part.isdigit() else part for part in way))
        if operation["op"] == "test" and place[last] != operation["value"]:
            raise ValueError(f"{operation['path']} is {place[last]}")
        if operation["op"] == "replace" and last not in place:
            raise LookupError(f"{operation['path']} is not there")
        if operation["op"] != "test":
            place[last] = copy.deepcopy(operation["value"])
    return result
