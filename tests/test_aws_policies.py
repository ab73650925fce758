"""infra/aws is all that the jobs need of S3: with a policy they run, without a statement one fails.

The judge is moto's server, in a process of its own, since it asks IAM of all whom it serves or of
nobody. Like AWS it refuses what no statement allows.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
import pytest
from botocore.exceptions import ClientError

from jobs import table
from pipelines.datasets import write_training_table
from pipelines.datasets.shapes import generate_archive
from pipelines.storage import s3
from pipelines.storage.folder import Folder
from pipelines.training.state import STATES_KEPT, StateStore
from tests.conftest import LabelledRun
from tests.head import free_port

ROOT = Path(__file__).parents[1]
POLICIES = ROOT / "infra/aws"
JOBS = ("label", "train", "table")
BUCKETS = ("photos", "weights", "table", "training", "runs")

ADMINISTRATOR = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)

Statement = dict[str, Any]
Keys = Mapping[str, str]
"""The two AWS variables that say who somebody is."""


def statements(job: str, without: str | None = None) -> list[Statement]:
    """Those of a policy, perhaps without one; "PHOTOS_BUCKET" is called "photos" here."""
    text = (POLICIES / f"{job}.json").read_text()
    filled_in = re.sub("([A-Z]+)_BUCKET", lambda name: name[1].lower(), text)
    return [each for each in json.loads(filled_in)["Statement"] if each["Sid"] != without]


def sids(job: str) -> list[str]:
    return [statement["Sid"] for statement in statements(job)]


def in_words_of_moto(statement: Statement) -> Statement:
    """HeadBucket, which asks for s3:ListBucket on AWS, asks for a permission of its own in moto."""
    if statement["Action"] != "s3:ListBucket":
        return statement
    return statement | {"Action": ["s3:ListBucket", "s3:HeadBucket"]}


class Cloud:
    """S3 and IAM, an administrator, and a user with the permissions that a test gives it."""

    def __init__(self, url: str) -> None:
        self._url = url
        nobody = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "none"}
        administrator = new_user(self.client("iam", nobody), "administrator")
        self.s3, self._iam = self.client("s3", administrator), self.client("iam", administrator)
        self.job = new_user(self._iam, "job")
        for bucket in BUCKETS:
            self.s3.create_bucket(Bucket=bucket)

    def client(self, service: str, keys: Keys) -> Any:
        session = boto3.Session(*keys.values(), region_name="us-east-1")
        return session.client(service, endpoint_url=self._url)

    def allow(self, job: str, without: str | None = None) -> None:
        """Give the job's user this policy and no other."""
        allowed = [in_words_of_moto(statement) for statement in statements(job, without)]
        policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        self._iam.put_user_policy(UserName="job", PolicyName="all", PolicyDocument=policy)

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables of the job's user."""
        return {**self.job, "AWS_ENDPOINT_URL": self._url, "AWS_DEFAULT_REGION": "us-east-1"}

    def run(self, job: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """A job as its user runs it, to its end."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            [sys.executable, "-m", f"jobs.{job}", *flags],
            cwd=ROOT,
            env=others | self.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        for path in filter(Path.is_file, folder.rglob("*")):
            key = f"{prefix}/{path.relative_to(folder)}"
            self.s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    def keys(self, bucket: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [item["Key"] for item in found]

    def empty(self, bucket: str) -> None:
        for key in self.keys(bucket):
            self.s3.delete_object(Bucket=bucket, Key=key)


def wait_for_server(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError("moto's server does not answer")


def new_user(iam: Any, name: str) -> Keys:
    """A user who may do anything, by three requests."""
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=ADMINISTRATOR)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
    }


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", f"--port={port}"],
        # The requests that make the administrator; whoever comes next is asked for permission.
        env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_server(port)
        yield Cloud(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def as_job(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the job's user, for what is quicker without a process of its own."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    s3.connection.cache_clear()
    yield
    s3.connection.cache_clear()


class TracebackToldError(AssertionError):
    """A job that was refused something told where in its code that was, and not what."""


with_traceback = pytest.mark.xfail(
    raises=TracebackToldError, strict=True, reason="ends with a traceback today"
)


def check_refused(ended: subprocess.CompletedProcess[str]) -> None:
    """Hold a job that lacks a permission to one sentence about that."""
    assert ended.returncode in (1, 2, 3)
    assert re.search("denied|forbidden", ended.stdout + ended.stderr, re.IGNORECASE)
    if "Traceback" in ended.stderr:
        raise TracebackToldError(ended.stderr)
    assert sum(line.startswith("error: ") for line in ended.stderr.splitlines()) == 1


def each_of(sids: list[str], untold: str) -> list[Any]:
    """The parameters of a test; without one statement the job ends with a traceback."""
    return [pytest.param(sid, marks=[with_traceback] if sid == untold else []) for sid in sids]


@pytest.mark.parametrize("job", JOBS)
def test_a_statement_allows_one_action_on_the_objects_or_on_the_bucket_itself(job: str) -> None:
    for statement in statements(job):
        action, resources = statement["Action"], statement["Resource"]
        is_of_bucket = action == "s3:ListBucket"
        assert is_of_bucket or action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")
        for resource in [resources] if isinstance(resources, str) else resources:
            bucket, slash, _ = resource.removeprefix("arn:aws:s3:::").partition("/")
            assert bucket in BUCKETS
            assert is_of_bucket != bool(slash)


@pytest.mark.parametrize("job", JOBS)
def test_photos_weights_and_training_tables_are_only_read(job: str) -> None:
    for statement in statements(job):
        if re.search(":::(photos|weights|training)", str(statement["Resource"])):
            assert statement["Action"] in ("s3:ListBucket", "s3:GetObject")


@pytest.mark.parametrize("job", JOBS)
def test_each_statement_has_a_name_of_its_own_that_iam_takes(job: str) -> None:
    assert len(set(sids(job))) == len(sids(job))
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids(job))


LABEL = (
    *("--source=s3://photos/2026/", "--table=s3://table/labels", "--checkpoint=s3://weights/any"),
    *("--run=night", "--date=2026-11-21", "--detector=tests.stand_in:StandIn", "--num_actors=1"),
)
ROWS = "labels/{}/date=2026-11-21/run=night/part-00000000.parquet"
LEFT_MANIFEST = "labels/manifests/night/part-000007.parquet"


@pytest.fixture
def archive(cloud: Cloud) -> None:
    """Three photos, and a table with what two killed starts of the run left there."""
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for number in range(3):
        cloud.s3.put_object(Bucket="photos", Key=f"2026/{number}.png", Body=picture)
    cloud.s3.put_object(Bucket="weights", Key="any", Body=b"the stand-in's")
    cloud.empty("table")
    for key in (LEFT_MANIFEST, ROWS.format("detections")):
        cloud.s3.put_object(Bucket="table", Key=key, Body=b"left behind")


@pytest.mark.ray
def test_labelling_runs_with_its_policy_and_tidies_up(cloud: Cloud, archive: None) -> None:
    cloud.allow("label")
    ended = cloud.run("label", *LABEL)
    assert ended.returncode == 0, ended.stderr
    assert "listed 3 = labelled 3 + failed 0" in ended.stdout
    manifest = "labels/manifests/night/part-000000.parquet"
    written = {ROWS.format("images"), ROWS.format("detections"), manifest, "labels/runs/night.json"}
    assert set(cloud.keys("table")) == written


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("sid", sids("label"))
def test_labelling_needs_each_statement_of_its_policy(
    cloud: Cloud, archive: None, sid: str
) -> None:
    cloud.allow("label", without=sid)
    check_refused(cloud.run("label", *LABEL))


@pytest.mark.parametrize("key", [ROWS.format("images"), "labels/runs/night.json"])
def test_labelling_may_delete_neither_rows_nor_records(cloud: Cloud, key: str) -> None:
    cloud.allow("label")
    client = cloud.client("s3", cloud.job)
    client.put_object(Bucket="table", Key=key, Body=b"finished")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket="table", Key=key)


TRAIN = (
    *("--train=s3://training/truth.parquet", "--val=s3://training/truth.parquet"),
    *("--initial_weights=s3://weights/nano.pth", "--output=s3://runs/mine", "--preset=nano"),
    *("--input_size=64", "--batch_size=2", "--warmup_epochs=0", "--no_aug_epochs=0"),
    # The state of the first epoch is deleted after the third.
    *(f"--epochs={STATES_KEPT + 1}", f"--eval_every={STATES_KEPT + 1}"),
)


@pytest.fixture(scope="module")
def shapes(cloud: Cloud, tiny_checkpoint: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Four photos, the training table of them, and weights to begin with."""
    photos, tables = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("tables")
    truth = generate_archive(photos, 4, 0, "s3://photos/shapes/images")
    write_training_table(str(tables / "truth.parquet"), truth)
    cloud.upload(photos, "photos", "shapes")
    cloud.s3.upload_file(str(tables / "truth.parquet"), "training", "truth.parquet")
    cloud.s3.put_object(Bucket="weights", Key="nano.pth", Body=tiny_checkpoint)


@pytest.mark.ray
@pytest.mark.slow
def test_training_runs_with_its_policy_and_keeps_its_newest_states(
    cloud: Cloud, shapes: None
) -> None:
    cloud.empty("runs")
    cloud.allow("train")
    ended = cloud.run("train", *TRAIN)
    assert ended.returncode == 0, ended.stderr
    written = cloud.keys("runs")
    assert "mine/best.pth" in written
    assert sum("/states/" in key for key in written) == STATES_KEPT
    assert [key for key in written if key.endswith(".lease")] == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("sid", [sid for sid in sids("train") if sid != "DeleteLeasesAndOldStates"])
def test_training_needs_each_statement_of_its_policy(cloud: Cloud, shapes: None, sid: str) -> None:
    cloud.empty("runs")
    cloud.allow("train", without=sid)
    check_refused(cloud.run("train", *TRAIN))


def test_a_training_that_may_not_delete_old_states_says_so_once_and_goes_on(
    cloud: Cloud, as_job: None
) -> None:
    cloud.empty("runs")
    cloud.allow("train", without="DeleteLeasesAndOldStates")
    states = StateStore(Folder("s3://runs/mine"))
    told = [states.save({}, epoch, step=0) for epoch in range(STATES_KEPT + 2)]
    assert [len(lines) for lines in told] == [0] * STATES_KEPT + [1, 0]
    assert re.search(r"cannot be deleted from s3://runs/mine/states.*AccessDenied", *told[-2])
    assert len(cloud.keys("runs")) == STATES_KEPT + 2


@pytest.mark.parametrize("key", ["mine/best.pth", "mine/metrics.csv"])
def test_training_may_delete_neither_weights_nor_metrics(cloud: Cloud, key: str) -> None:
    cloud.allow("train")
    client = cloud.client("s3", cloud.job)
    client.put_object(Bucket="runs", Key=key, Body=b"of a month's work")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket="runs", Key=key)


COMMANDS = {
    "list": (),
    "check": (),
    "ddl": ("--engine=athena",),
    "compact": ("--run=night", "--grace_seconds=0"),
    "drop": ("--run=evening",),
}
WRITING = ("compact", "drop")
"""The others only read."""


def is_refused(command: str, sid: str) -> bool:
    """Whether a command of jobs.table fails without this statement."""
    return sid in ("ListTheTable", "ReadTheTable") or command in WRITING


@pytest.fixture
def labels(cloud: Cloud, labelled_run: Callable[..., LabelledRun], tmp_path: Path) -> None:
    """A table of two runs."""
    for run in ("evening", "night"):
        labelled_run(run).write(Folder(str(tmp_path)))
    cloud.empty("table")
    cloud.upload(tmp_path, "table", "labels")


@pytest.fixture
def care(as_job: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs a command of jobs.table in this process, as the job's user; its exit code."""

    def care(command: str) -> int:
        flags = [command, "--table=s3://table/labels", *COMMANDS[command]]
        monkeypatch.setattr("sys.argv", ["jobs.table", *flags])
        try:
            table.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return care


def test_a_table_is_cared_for_with_its_policy(
    cloud: Cloud, labels: None, care: Callable[[str], int]
) -> None:
    cloud.allow("table")
    assert {command: care(command) for command in COMMANDS} == dict.fromkeys(COMMANDS, 0)
    assert [key for key in cloud.keys("table") if key.endswith(".lease")] == []


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("sid", sids("table"))
def test_the_care_of_a_table_needs_each_statement_of_its_policy(
    cloud: Cloud,
    labels: None,
    care: Callable[[str], int],
    capsys: pytest.CaptureFixture[str],
    command: str,
    sid: str,
) -> None:
    cloud.allow("table", without=sid)
    code = care(command)
    assert code == (2 if is_refused(command, sid) else 0)
    assert capsys.readouterr().err.count("error: ") == (1 if code else 0)
