"""What a submission depends on, and what it refuses to send."""

import os
from dataclasses import dataclass, field

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Where a job goes, and what happens when it ends."""

    address: str = field(default_factory=lambda: os.environ.get("RAY_API_SERVER_ADDRESS", ""))
    """The cluster's dashboard: http://host:8265. Without it: RAY_API_SERVER_ADDRESS."""
    wait: bool = False
    """Follow the job's log to its end, and exit with its exit code."""
    retries: int = 0
    """With --wait: submit it again so often, after exit codes 1 and 4 and where the cluster was
    lost; what is written is never done again."""
    json_log: bool = False
    """Each line of the job's log is a JSON object, with the run and, of a part, its number."""
    files: tuple[str, ...] = ()
    """What travels beside the code, for example [my_detector.py]: files and folders, which the job
    finds in its working folder."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job, for example {AWS_DEFAULT_REGION: eu-central-1}. Whoever
    sees the dashboard sees them: no secrets."""

    def __post_init__(self) -> None:
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(
                f"address={self.address!r}: must be the dashboard's, as http://host:8265 (the port "
                "of `ray start --dashboard-port`; 6379 and 10001 are others)"
            )
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: must not be negative")
        if self.retries and not self.wait:
            raise ValueError(
                f"retries={self.retries}: needs --wait, for nobody else sees the job end"
            )
        told = [name for name in self.env if name in _SECRETS]
        if told:
            raise ValueError(
                f"env has {', '.join(told)}: everybody who sees the dashboard would read it; give "
                "the nodes a role (an instance profile, or IRSA as in infra/kubernetes), or a "
                "Kubernetes Secret as environment of the cluster's containers"
            )
