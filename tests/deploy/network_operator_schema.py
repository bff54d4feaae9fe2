"""Kinds of NVIDIA's network operator as strict JSON Schema: exactly the fields that our manifests may use.

Written after its documentation ("Customization Options and CRDs") and the API of the SR-IOV network
operator; no package registry carries their schemas.
"""

from kuberay_schema import FLAG, TEXT, TEXTS, Schema, listed, one_of, record, whole

PORT_MTU: Schema = {"type": "integer", "minimum": 0}
SUBNET: Schema = {"type": "string", "pattern": r"^[0-9.]+/[0-9]+$"}


def kinds(kubernetes: str) -> dict[tuple[str, str], Schema]:
    """Return the schemas by apiVersion and kind; ``kubernetes`` is where the core definitions are."""
    image = {"image": TEXT, "repository": TEXT, "version": TEXT, "imagePullSecrets": listed(TEXT)}
    needs = "image repository version"
    policy = record(
        rdmaSharedDevicePlugin=record(needs, **image, config=TEXT),
        nvIpam=record(needs, **image, enableWebhook=FLAG),
        secondaryNetwork=record(cniPlugins=record(needs, **image), multus=record(needs, **image)),
    )
    macvlan = record(
        "networkNamespace master ipam",
        networkNamespace=TEXT,
        master=TEXT,
        mode=one_of("bridge", "private", "vepa", "passthru"),
        mtu=PORT_MTU,
        ipam=TEXT,
    )
    node_policy = record(
        "resourceName numVfs nodeSelector nicSelector",
        resourceName={"type": "string", "pattern": "^[a-zA-Z0-9_]+$"},
        deviceType=one_of("netdevice", "vfio-pci"),
        isRdma=FLAG,
        mtu=PORT_MTU,
        numVfs={"type": "integer", "minimum": 1},
        priority={"type": "integer", "minimum": 0, "maximum": 99},
        nodeSelector=TEXTS,
        nicSelector=record(
            vendor=TEXT, deviceID=TEXT, pfNames=listed(TEXT), rootDevices=listed(TEXT), netFilter=TEXT
        ),
    )
    network = record(
        "networkNamespace resourceName ipam",
        networkNamespace=TEXT,
        resourceName=TEXT,
        ipam=TEXT,
        vlan={"type": "integer", "minimum": 0},
        metaPlugins=TEXT,
    )
    pool = record(
        "subnet perNodeBlockSize",
        subnet=SUBNET,
        perNodeBlockSize={"type": "integer", "minimum": 1},
        gateway=TEXT,
    )
    specs = {
        ("mellanox.com/v1alpha1", "NicClusterPolicy"): policy,
        ("mellanox.com/v1alpha1", "MacvlanNetwork"): macvlan,
        ("nv-ipam.nvidia.com/v1alpha1", "IPPool"): pool,
        ("sriovnetwork.openshift.io/v1", "SriovNetworkNodePolicy"): node_policy,
        ("sriovnetwork.openshift.io/v1", "SriovNetwork"): network,
    }
    return {key: whole(*key, spec, kubernetes) for key, spec in specs.items()}


DEVICE_PLUGIN = record(
    "configList",
    configList=listed(
        record(
            "resourceName rdmaHcaMax selectors",
            resourceName=TEXT,
            rdmaHcaMax={"type": "integer", "minimum": 1},
            selectors=record(
                ifNames=listed(TEXT), vendors=listed(TEXT), deviceIDs=listed(TEXT), drivers=listed(TEXT)
            ),
        )
    ),
)
"""The ``config`` of the RDMA shared device plugin, which is JSON in a string."""

IPAM = record("type poolName", type={"const": "nv-ipam"}, poolName=TEXT)
"""The ``ipam`` of a network, which is JSON in a string."""
