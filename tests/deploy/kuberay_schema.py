"""KubeRay's kinds as strict JSON Schema: exactly the fields that our manifests may use.

No package registry carries KubeRay's own schemas. These are written after its API reference
(https://ray-project.github.io/kuberay/reference/api/, ray.io/v1); what is a pod's or a Service's own is left
to Kubernetes' schemas.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}


def record(required: str = "", **fields: Schema) -> Schema:
    """Return an object with these fields and no others; ``required`` names those that it has to have."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    """Return an array."""
    return {"type": "array", "items": items}


def one_of(*values: str) -> Schema:
    """Return an enumeration."""
    return {"enum": list(values)}


def kinds(kubernetes: str) -> dict[tuple[str, str], Schema]:
    """Return the schemas by apiVersion and kind; ``kubernetes`` is where the core definitions are."""

    def core(name: str) -> Schema:
        return {"$ref": f"{kubernetes}#/$defs/io.k8s.api.core.v1.{name}"}

    autoscaler = record(
        version=one_of("v1", "v2"),
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        idleTimeoutSeconds=COUNT,
        image=TEXT,
        imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
        resources=core("ResourceRequirements"),
        securityContext=core("SecurityContext"),
        env=listed(core("EnvVar")),
        envFrom=listed(core("EnvFromSource")),
        volumeMounts=listed(core("VolumeMount")),
    )
    group = {
        "rayStartParams": TEXTS,
        "resources": TEXTS,
        "labels": TEXTS,
        "template": core("PodTemplateSpec"),
    }
    head = record("rayStartParams template", **group, headService=core("Service"), serviceType=TEXT)
    workers = record(
        "groupName minReplicas maxReplicas rayStartParams template",
        **group,
        groupName=TEXT,
        replicas=COUNT,
        minReplicas=COUNT,
        maxReplicas=COUNT,
        idleTimeoutSeconds=COUNT,
        priority={"type": "integer"},
    )
    cluster = record(
        "headGroupSpec rayVersion",
        rayVersion=TEXT,
        authOptions=record(mode=one_of("disabled", "token"), secretName=TEXT),
        enableInTreeAutoscaling=FLAG,
        autoscalerOptions=autoscaler,
        headServiceAnnotations=TEXTS,
        suspend=FLAG,
        headGroupSpec=head,
        workerGroupSpecs=listed(workers),
    )
    job = record(
        "entrypoint",
        entrypoint=TEXT,
        runtimeEnvYAML=TEXT,
        jobId=TEXT,
        metadata=TEXTS,
        submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        submitterPodTemplate=core("PodTemplateSpec"),
        submitterConfig=record(backoffLimit=COUNT),
        clusterSelector=TEXTS,
        rayClusterSpec=cluster,
        entrypointNumCpus={"type": "number", "minimum": 0},
        entrypointNumGpus={"type": "number", "minimum": 0},
        entrypointResources=TEXT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        backoffLimit=COUNT,
        suspend=FLAG,
    )
    cron_job = record(
        "schedule jobTemplate",
        schedule=TEXT,
        timeZone={"type": "string", "minLength": 1},
        suspend=FLAG,
        jobTemplate=job,
    )
    service = record(
        "rayClusterConfig serveConfigV2",
        serveConfigV2=TEXT,
        rayClusterConfig=cluster,
        serveService=core("Service"),
        upgradeStrategy=record(type=one_of("NewCluster", "None")),
        excludeHeadPodFromServeSvc=FLAG,
        rayClusterDeletionDelaySeconds=COUNT,
        suspend=FLAG,
    )
    specs = {"RayCluster": cluster, "RayJob": job, "RayCronJob": cron_job, "RayService": service}
    return {("ray.io/v1", kind): whole("ray.io/v1", kind, spec, kubernetes) for kind, spec in specs.items()}


def whole(version: str, kind: str, spec: Schema, kubernetes: str) -> Schema:
    """Return the schema of an object with this spec."""
    metadata = {"$ref": f"{kubernetes}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    return record(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )
