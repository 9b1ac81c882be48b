"""The JobSet manifest: known fields of right types, and one place in agreement."""

import copy
import re

import jsonschema
import pytest
import yaml

from dlworkshop.workshop import launch
from tests.conftest import ROOT

WHOLE, TEXT = {"type": "integer", "minimum": 0}, {"type": "string"}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}


def fields(required=(), **properties):
    """An object that has no other fields, as a cluster wants it with --validate."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def items(schema):
    return {"type": "array", "items": schema, "minItems": 1}


# What the manifest uses of jobset.x-k8s.io/v1alpha2 (all fields of these parts of its
# CustomResourceDefinition), and of a Job's and a pod's template in Kubernetes' API.
REFERENCE = fields(["fieldRef"], fieldRef=fields(["fieldPath"], fieldPath=TEXT))
CONTAINER = fields(
    ["name", "image"],
    name=NAME,
    image=TEXT,
    command=items(TEXT),
    args=items(TEXT),
    env=items(fields(["name"], name=TEXT, value=TEXT, valueFrom=REFERENCE)),
    ports=items(fields(["containerPort"], containerPort=WHOLE, name=NAME)),
    resources=fields(limits={"type": "object"}, requests={"type": "object"}),
    volumeMounts=items(
        fields(["name", "mountPath"], name=NAME, mountPath=TEXT, readOnly={})
    ),
)
CLAIM = fields(["claimName"], claimName=NAME, readOnly={"type": "boolean"})
POD = fields(
    ["containers", "restartPolicy"],
    restartPolicy={"enum": ["Never", "OnFailure"]},  # of a Job
    terminationGracePeriodSeconds=WHOLE,
    nodeSelector={"type": "object"},
    containers=items(CONTAINER),
    volumes=items(fields(["name"], name=NAME, persistentVolumeClaim=CLAIM)),
)
JOB = fields(
    ["template"],
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    completions=WHOLE,
    parallelism=WHOLE,
    backoffLimit=WHOLE,
    activeDeadlineSeconds=WHOLE,
    template=fields(["spec"], metadata={"type": "object"}, spec=POD),
)
JOBSET = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=fields(["name"], name=NAME, namespace=NAME, labels={}, annotations={}),
    spec=fields(
        replicatedJobs=items(
            fields(
                ["name", "template"],
                name=NAME,
                groupName=NAME,
                replicas=WHOLE,
                dependsOn={"type": "array", "maxItems": 5},
                template=fields(["spec"], metadata={"type": "object"}, spec=JOB),
            )
        ),
        network=fields(
            enableDNSHostnames={"type": "boolean"},
            subdomain=NAME,
            publishNotReadyAddresses={"type": "boolean"},
        ),
        successPolicy=fields(["operator"], operator=TEXT, targetReplicatedJobs={}),
        failurePolicy=fields(maxRestarts=WHOLE, restartStrategy=TEXT, rules={}),
        startupPolicy=fields(["startupPolicyOrder"], startupPolicyOrder=TEXT),
        suspend={"type": "boolean"},
        coordinator=fields(
            ["replicatedJob"], replicatedJob=NAME, jobIndex=WHOLE, podIndex=WHOLE
        ),
        managedBy=TEXT,
        ttlSecondsAfterFinished=WHOLE,
        volumeClaimPolicies={"type": "array", "maxItems": 50},
    ),
)


@pytest.fixture(scope="module")
def manifest():
    text = (ROOT / "scripts/kubernetes/train.yaml").read_text()
    return yaml.safe_load(text)


def test_its_fields_are_those_of_the_api(manifest):
    jsonschema.validate(manifest, JOBSET)
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["replicatedJobs"][0]["template"]["spec"]["completion"] = 4
    with pytest.raises(jsonschema.ValidationError, match="'completion' was unexpected"):
        jsonschema.validate(wrong, JOBSET)


def test_every_pod_finds_the_coordinator(manifest, monkeypatch):
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    (job,) = spec["replicatedJobs"]
    pods = job["template"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    env = {each["name"]: each for each in container["env"]}
    # <jobset>-<replicated job>-<job index>-<pod index>.<subdomain>
    first, port = env["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert first == f"{name}-{job['name']}-0-0.{spec['network']['subdomain']}"
    assert int(port) == container["ports"][0]["containerPort"]
    assert spec["coordinator"] == {
        "replicatedJob": job["name"],
        "jobIndex": 0,
        "podIndex": 0,
    }
    count = int(env["JAX_NUM_PROCESSES"]["value"])
    assert pods["completionMode"] == "Indexed" and job["replicas"] == 1
    assert pods["completions"] == pods["parallelism"] == count > 1
    index = env["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert re.fullmatch(r".*\['batch.kubernetes.io/job-completion-index'\]", index)
    # what a process makes of it
    seen = []
    monkeypatch.setattr(launch, "_connect", lambda *place: seen.append(place[:3]))
    for variable, each in env.items():
        monkeypatch.setenv(variable, each.get("value", "3"))
    with launch.joined(None, None, None):
        pass
    assert seen == [(f"{first}:{port}", count, 3)]
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert any(container["command"][-1].startswith(f"{mount}/") for mount in mounts)
