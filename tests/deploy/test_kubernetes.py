"""The manifests for Kubernetes: KubeRay's fields by its custom resources' schema, the rest by Kubernetes' own."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.conftest import CHECKOUT

FOLDER = CHECKOUT / "deploy" / "kubernetes"
SCHEMA = json.loads((CHECKOUT / "tests" / "deploy" / "kuberay_schema.json").read_text())
KUBERNETES = "1.32"


def objects(name: str) -> list[dict[str, Any]]:
    """The objects of a manifest file."""
    return [thing for thing in yaml.safe_load_all((FOLDER / name).read_text()) if thing]


def cluster_spec(thing: dict[str, Any]) -> dict[str, Any]:
    """The cluster of a RayCluster or a RayJob."""
    spec: dict[str, Any] = thing["spec"] if thing["kind"] == "RayCluster" else thing["spec"]["rayClusterSpec"]
    return spec


def groups(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Head and workers."""
    yield spec["headGroupSpec"]
    yield from spec["workerGroupSpecs"]


def check(thing: dict[str, Any]) -> None:
    """Hold an object, and the pod templates in it, against the schemas."""
    if not thing["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
        return
    jsonschema.validate(thing, SCHEMA)
    for group in groups(cluster_spec(thing)):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_object_is_valid(path) -> None:  # type: ignore[no-untyped-def]
    found = objects(path.name)
    assert found
    for thing in found:
        check(thing)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(autoscaling=True),
        lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="eight"),
        lambda spec: spec["headGroupSpec"]["template"]["spec"].update(serviceAccount=3),
        lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0].update(volumeMount=[]),
    ],
    ids=["unknown field", "wrong type", "wrong type in a pod", "unknown field in a pod"],
)
def test_what_is_wrong_is_seen(spoil) -> None:  # type: ignore[no-untyped-def]
    (thing,) = objects("raycluster.yaml")
    spoil(cluster_spec(thing))
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(thing)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_the_cluster_is_as_the_page_says(name: str) -> None:
    (thing,) = objects(name)
    spec = cluster_spec(thing)
    head, workers = spec["headGroupSpec"], {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert spec["enableInTreeAutoscaling"] and spec["authOptions"] == {"mode": "token", "secretName": "cpn"}
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in groups(spec):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] and container["image"].startswith("cpn-platform:")
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    (gpu,) = workers["gpu"]["template"]["spec"]["containers"]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (cpu,) = workers["cpu"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in cpu["resources"]["limits"]


def test_a_claim_is_made_for_every_volume_that_is_claimed() -> None:
    made = {thing["metadata"]["name"] for thing in objects("storage.yaml")}
    for name in ("raycluster.yaml", "rayjob.yaml"):
        for group in groups(cluster_spec(objects(name)[0])):
            volumes = group["template"]["spec"]["volumes"]
            assert {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v} <= made


def test_a_retry_of_the_job_gives_the_same_command() -> None:
    (job,) = objects("rayjob.yaml")
    assert job["spec"]["backoffLimit"] > 0 and job["spec"]["shutdownAfterJobFinishes"]
    assert "resources.storage=" in job["spec"]["entrypoint"]
    assert cluster_spec(job) == cluster_spec(objects("raycluster.yaml")[0])
