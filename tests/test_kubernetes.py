"""The manifests of infra/kubernetes: valid, with one file to change, and as they say they are.

What their entrypoints do is tried in tests/jobs/test_kubernetes_entrypoints.py.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.labelling import LabellingConfig
from pipelines.training import TrainingConfig

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "infra/kubernetes"
VALUES = KUBERNETES / "base/values.yaml"
FOLDERS = ("label", "train", "nightly-raycronjob", "nightly-cronjob")
PLACEHOLDER = "CHANGE_ME"
OLDEST, NEWEST = "1.27", "1.37"
"""Of Kubernetes: the first whose CronJob has a time zone, and the newest whose schemas we have."""

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="needs kubectl, for its kustomize")

Manifest = dict[str, Any]


@cache
def rendered(folder: str, root: Path = KUBERNETES) -> list[Manifest]:
    """What `kubectl apply -k` would send to a cluster."""
    command = ["kubectl", "kustomize", str(root / folder)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(told.stdout))


def job_of(folder: str) -> Manifest:
    """The spec of the folder's RayJob, or of those that its RayCronJob makes."""
    [found] = [each for each in rendered(folder) if each["apiVersion"] == "ray.io/v1"]
    spec: Manifest = found["spec"]
    return spec["jobTemplate"] if found["kind"] == "RayCronJob" else spec


def settings_of(job: str) -> dict[str, Any]:
    """The flags that a job finds in its file, as they stand in values.yaml."""
    [found] = [each for each in rendered("label") if each["kind"] == "ConfigMap"]
    settings: dict[str, Any] = yaml.safe_load(found["data"][f"{job}.yaml"])
    return settings


def _one(folder: str, kind: str) -> Manifest:
    [found] = [each for each in rendered(folder) if each["kind"] == kind]
    return found


@cache
def _schema(shared: Path, kind: str) -> jsonschema.Draft202012Validator:
    """KubeRay's, in which a field that it does not know is a fault: a cluster would drop it."""
    schema: Manifest = json.loads((shared / f"crds/{kind}-v1.schema.json").read_text())
    for part in _parts_of(schema):
        if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
    return jsonschema.Draft202012Validator(schema)


def _parts_of(tree: object) -> Iterator[Manifest]:
    """Every mapping in it."""
    if isinstance(tree, dict):
        yield tree
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _parts_of(part)


def _pods(folder: str) -> list[Manifest]:
    found = [part for part in _parts_of(rendered(folder)) if "containers" in part]
    assert found
    return found


def _cluster(folder: str) -> tuple[Manifest, Manifest]:
    """The head's group and the workers'."""
    spec = job_of(folder)["rayClusterSpec"]
    [workers] = spec["workerGroupSpecs"]
    return spec["headGroupSpec"], workers


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_keeps_to_the_schema_of_its_kind(folder: str, shared: Path) -> None:
    for manifest in rendered(folder):
        if manifest["apiVersion"] == "ray.io/v1":
            _schema(shared, manifest["kind"]).validate(manifest)
        else:
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ((), {"backofLimit": 3}),
        ((), {"ttlSecondsAfterFinished": "ten minutes"}),
        (("rayClusterSpec", "headGroupSpec"), {"rayStartParam": {}}),
        (("rayClusterSpec", "headGroupSpec", "template", "spec"), {"nodeselector": {}}),
    ],
)
def test_a_field_that_is_misspelt_or_of_another_type_is_a_fault(
    shared: Path, place: tuple[str, ...], wrong: Manifest
) -> None:
    manifest = json.loads(json.dumps(_one("label", "RayJob")))
    part = manifest["spec"]
    for name in place:
        part = part[name]
    part |= wrong
    with pytest.raises(jsonschema.ValidationError, match=next(iter(wrong))):
        _schema(shared, "RayJob").validate(manifest)


def test_what_must_be_changed_stands_in_one_file(tmp_path: Path) -> None:
    holding = [path for path in KUBERNETES.rglob("*.yaml") if PLACEHOLDER in path.read_text()]
    assert holding == [VALUES]
    changed = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, changed)
    values = changed / VALUES.relative_to(KUBERNETES)
    values.write_text(values.read_text().replace(PLACEHOLDER, "mine"))
    for folder in FOLDERS:
        assert PLACEHOLDER not in json.dumps(rendered(folder, changed))


def test_each_value_comes_to_where_it_is_used() -> None:
    values = next(yaml.safe_load_all(VALUES.read_text()))["spec"]
    head, workers = _cluster("label")
    annotations = _one("label", "ServiceAccount")["metadata"]["annotations"]
    assert annotations == {"eks.amazonaws.com/role-arn": values["roleArn"]}
    assert workers["maxReplicas"] == values["workers"]["max"]
    for name in ("nodeSelector", "tolerations"):
        assert workers["template"]["spec"][name] == values["workers"][name]
    assert head["template"]["spec"]["nodeSelector"] == values["head"]["nodeSelector"]
    for nightly in (_one("nightly-raycronjob", "RayCronJob"), _one("nightly-cronjob", "CronJob")):
        for name in ("schedule", "timeZone"):
            assert nightly["spec"][name] == values[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_ray_is_that_of_the_image(folder: str) -> None:
    dockerfile = (ROOT / "infra/Dockerfile").read_text()
    [version] = re.findall(r"^FROM rayproject/ray:([\d.]+)-", dockerfile, re.MULTILINE)
    job = job_of(folder)
    assert job["rayClusterSpec"]["rayVersion"] == version
    images = {
        container["image"] for part in _parts_of(job) for container in part.get("containers", [])
    }
    assert len(images) == 1
    assert images.pop().endswith(f"-ray{version}")


def test_the_settings_are_flags_of_their_jobs_and_leave_no_gpu_idle() -> None:
    label, train = settings_of("label"), settings_of("train")
    LabellingConfig(**label)
    TrainingConfig(**train)
    workers = _cluster("label")[1]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = workers["maxReplicas"] * int(limits["nvidia.com/gpu"])
    assert label["num_actors"] * label["gpus_per_actor"] == gpus
    assert train["num_workers"] == gpus


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_head_works_on_nothing_and_workers_come_from_none(folder: str) -> None:
    head, workers = _cluster(folder)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert job_of(folder)["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert workers["minReplicas"] == workers["replicas"] == 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pod_is_root_or_without_limits(folder: str) -> None:
    for pod in _pods(folder):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][bound])


def _account_with_a_role(folder: str) -> str:
    accounts = [each["metadata"] for each in rendered(folder) if each["kind"] == "ServiceAccount"]
    [name] = [account["name"] for account in accounts if "annotations" in account]
    return str(name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_ray_has_shared_memory_a_role_and_time_to_end(folder: str) -> None:
    for group in _cluster(folder):
        pod = group["template"]["spec"]
        [mount] = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/dev/shm"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert pod["serviceAccountName"] == _account_with_a_role(folder)
        assert pod["terminationGracePeriodSeconds"] > 30


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_job_has_a_token_deadlines_further_attempts_and_an_end(folder: str) -> None:
    job = job_of(folder)
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"]
    assert job["ttlSecondsAfterFinished"] > 0


def test_an_attempt_of_a_night_ends_before_the_next_night() -> None:
    for folder in ("nightly-raycronjob", "nightly-cronjob"):
        assert job_of(folder)["activeDeadlineSeconds"] < 24 * 3600


def test_the_nights_do_what_label_does() -> None:
    label = job_of("label")["entrypoint"]
    assert job_of("nightly-cronjob")["entrypoint"] == label
    assert f"'{label};" in job_of("nightly-raycronjob")["entrypoint"]


def test_a_cronjob_starts_no_night_beside_another() -> None:
    cron = _one("nightly-cronjob", "CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert job_of("nightly-cronjob")["suspend"]
    assert cron["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_pods_of_ray_are_behind_the_network_policy(folder: str) -> None:
    selected = _one(folder, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    templates = [group["template"] for group in _cluster(folder)]
    for template in (*templates, job_of(folder)["submitterPodTemplate"]):
        assert selected <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_leave_room_for_what_kuberay_adds_to_them(folder: str) -> None:
    longest = {"RayJob": 47, "RayCronJob": 36}  # KubeRay 1.7 refuses longer ones
    for manifest in rendered(folder):
        assert len(manifest["metadata"]["name"]) <= longest.get(manifest["kind"], 63)


def test_the_readme_says_how_to_apply_each_folder() -> None:
    readme = (KUBERNETES / "README.md").read_text()
    for folder in FOLDERS:
        assert f"kubectl apply -k infra/kubernetes/{folder}\n" in readme


class Night:
    """night.sh beside a kubectl that has one RayJob, or none, and says where it stands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "pattern.json").write_text(json.dumps(self._pattern()))
        (folder / "kubectl").write_text(f"#!/bin/sh\ncd {folder}\n{self.STAND_IN}")
        (folder / "kubectl").chmod(0o755)

    STAND_IN = f"""
[ "$1" = patch ] && exec {KUBECTL} "$@"
echo "$1 $3" >> asked
case "$1 $3" in
    "get yolox-ray-nightly") cat pattern.json ;;
    get*) head -n 1 states; [ $(wc -l < states) -lt 2 ] || sed -i 1d states ;;
    delete*) : > states ;;
    create*) cat > created.json; cp states-after states ;;
esac
"""

    @staticmethod
    def _pattern() -> Manifest:
        """As a cluster would hand it out."""
        manifest: Manifest = json.loads(json.dumps(_one("nightly-cronjob", "RayJob")))
        manifest["metadata"] |= {"resourceVersion": "7", "uid": "7", "generation": 1}
        return manifest | {"status": {"jobDeploymentStatus": "Suspended"}}

    def run(self, *before: str, after: tuple[str, ...] = ()) -> int:
        """The exit code, where the RayJob stands so `before` and, newly created, so `after`."""
        for name, states in (("states", before), ("states-after", after)):
            lines = [f"yolox-ray-night {state}\n" for state in states]
            (self._folder / name).write_text("".join(lines))
        (self._folder / "asked").write_text("")
        environment = {"PATH": f"{self._folder}:/usr/bin:/bin", "SECONDS_BETWEEN_LOOKS": "0"}
        script = KUBERNETES / "nightly-cronjob/night.sh"
        return subprocess.run(["sh", str(script)], env=environment, timeout=60).returncode

    @property
    def changes(self) -> list[str]:
        """What it has done, apart from looking."""
        asked = (self._folder / "asked").read_text().splitlines()
        return [line.split()[0] for line in asked if not line.startswith("get")]

    @property
    def created(self) -> Manifest:
        manifest: Manifest = json.loads((self._folder / "created.json").read_text())
        return manifest


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_a_night_is_a_copy_of_the_pattern_that_is_not_suspended(night: Night, shared: Path) -> None:
    assert night.run(after=("", "Running", "Complete")) == 0
    assert night.changes == ["create"]
    assert night.created["metadata"].keys() == {"name", "generation"}
    assert night.created["spec"] == job_of("nightly-cronjob") | {"suspend": False}
    _schema(shared, "RayJob").validate(night.created)


def test_a_night_that_failed_fails_the_cronjobs_job(night: Night) -> None:
    assert night.run(after=("Running", "Retrying", "Running", "Failed")) == 1


def test_a_night_takes_the_place_of_one_that_has_ended(night: Night) -> None:
    assert night.run("Failed", after=("Running", "Complete")) == 0
    assert night.changes == ["delete", "create"]


def test_a_night_that_goes_on_is_followed_and_not_started_again(night: Night) -> None:
    assert night.run("Running", "Running", "Running", "Complete") == 0
    assert night.changes == []
