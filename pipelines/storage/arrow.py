"""Arrow's own filesystems, which read Parquet."""

from urllib.parse import urlsplit

import botocore.session
import pyarrow.fs as pafs
from botocore.config import Config

from pipelines.storage.s3 import RetryPolicy


def arrow_s3_filesystem(bucket: str, policy: RetryPolicy) -> pafs.S3FileSystem:
    """Arrow's S3 client, told what botocore finds in the AWS variables and files."""
    session = botocore.session.get_session()
    config = Config(
        connect_timeout=policy.connect_timeout_s,
        read_timeout=policy.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": policy.attempts},
    )
    client = session.create_client("s3", config=config)
    region = client.head_bucket(Bucket=bucket).get("BucketRegion", client.meta.region_name)
    endpoint = urlsplit(client.meta.endpoint_url)
    is_aws = str(endpoint.hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
    keys = session.get_credentials().get_frozen_credentials()
    return pafs.S3FileSystem(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token,
        region=region,
        scheme=endpoint.scheme,
        # AWS has an endpoint for each region, which Arrow knows.
        endpoint_override=None if is_aws else f"{endpoint.netloc}{endpoint.path}",
        connect_timeout=policy.connect_timeout_s,
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=policy.attempts),
    )
