"""moto's S3 server on loopback, in a thread of the tests' process, and the environment that names it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """An empty S3 with these buckets at a free port; its URL. The environment is put back at the end."""
    import boto3
    from moto.server import ThreadedMotoServer

    before = dict(os.environ)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        os.environ.update({**SETTINGS, "AWS_ENDPOINT_URL": url})
        client = boto3.client("s3")
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        client.close()
        yield url
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()
