"""What of kustomize's own files we use, as strict JSON Schema."""

from kuberay_schema import TEXT, TEXTS, listed, record

GENERATOR = record(
    "name",
    name=TEXT,
    namespace=TEXT,
    files=listed(TEXT),
    literals=listed({"type": "string", "pattern": "^[A-Z][A-Z0-9_]*="}),
    options=record(disableNameSuffixHash={"const": True}),
)
TARGET = record("kind name", kind=TEXT, name=TEXT)
KUSTOMIZATION = record(
    "apiVersion kind resources",
    apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
    kind={"const": "Kustomization"},
    namespace=TEXT,
    resources=listed(TEXT),
    configMapGenerator=listed(GENERATOR),
    replacements=listed(record("path", path=TEXT)),
    patches=listed(record("target", target=TARGET, path=TEXT, patch=TEXT)),
)
REPLACEMENTS = listed(
    record(
        "source targets",
        source=record("kind name fieldPath", kind=TEXT, name=TEXT, fieldPath=TEXT),
        targets=listed(record("select fieldPaths", select=TARGET, fieldPaths=listed(TEXT))),
    )
)
VALUES = record(
    "apiVersion kind metadata data",
    apiVersion={"const": "v1"},
    kind={"const": "ConfigMap"},
    metadata=record(
        "name annotations",
        name={"const": "values"},
        annotations=record(**{"config.kubernetes.io/local-config": {"const": "true"}}),
    ),
    data=TEXTS,
)
