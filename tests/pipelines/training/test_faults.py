from pathlib import Path

import pytest

from pipelines.errors import InputError, RunStoppedError, TrainingDivergedError
from pipelines.storage.folder import Folder
from pipelines.storage.s3 import RetryPolicy
from pipelines.training.faults import output_errors_sorted
from pipelines.training.group import _Listener
from tests.conftest import Bucket
from tests.faulty_s3 import Fault, FaultyS3, Rule, access_denied, slow_down


@pytest.mark.parametrize(
    ("fault", "kind"), [(access_denied, InputError), (slow_down, RunStoppedError)]
)
def test_what_an_output_on_s3_denies_is_for_good_and_what_may_pass_is_not(
    bucket: Bucket, faulty_s3: FaultyS3, fault: Fault, kind: type[Exception]
) -> None:
    output = Folder(f"s3://{bucket.name}/run", RetryPolicy(attempts=1))
    faulty_s3.add(Rule(fault, method="PUT"))
    with (
        pytest.raises(kind, match=r"output='s3://.*/run' cannot be read or written: .*PutObject"),
        output_errors_sorted(output),
    ):
        output.write("last.pth", b"weights")


@pytest.mark.parametrize(
    ("error", "kind"), [(PermissionError, InputError), (OSError, RunStoppedError)]
)
def test_what_a_disk_denies_is_for_good_and_what_may_pass_is_not(
    tmp_path: Path, error: type[OSError], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="no room"), output_errors_sorted(Folder(str(tmp_path))):
        raise error("no room")


def test_workers_are_started_again_unless_one_met_what_would_come_back() -> None:
    listener = _Listener(reports=None)
    outage = RunStoppedError("S3 is away")
    listener.after_exception(None, {0: outage, 1: OSError("killed")})  # raises nothing
    for error in (InputError("denied"), TrainingDivergedError("not finite")):
        with pytest.raises(type(error)):
            listener.after_exception(None, {0: outage, 1: error})
