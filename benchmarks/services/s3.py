"""An S3 endpoint, moto's server, with one bucket, on a free port of 127.0.0.1; what it holds is in its memory.

with s3() as server:
    os.environ.update(server.environment)     # for pyarrow.fs, boto3 and MLflow alike
    server.url                                # s3://BUCKET
"""

import secrets
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from benchmarks.services.processes import Service, free_port, marked

BUCKET = "cpn"


class S3(Service):
    """An endpoint that runs."""

    endpoint: str
    key: str
    secret: str
    url = f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients read: endpoint, region, credentials."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3() -> Iterator[S3]:
    """A fresh endpoint with the empty bucket `cpn`."""
    with marked("s3") as mark:
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = S3(command, mark.folder / "log", mark.environment, lambda: _answers(port))
        server.endpoint = f"http://127.0.0.1:{port}"
        server.key, server.secret = secrets.token_hex(8), secrets.token_hex(16)
        server.start()
        try:
            with client(server) as objects:
                objects.create_bucket(Bucket=BUCKET)
            yield server
        finally:
            server.stop()


@contextmanager
def client(server: S3) -> Iterator[Any]:
    """A boto3 client of the endpoint; its connections are closed after the block."""
    import boto3

    s3 = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
    )  # fmt: skip
    with closing(s3):
        yield s3


def _answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5) as answer:
        return bool(answer.status == 200)
