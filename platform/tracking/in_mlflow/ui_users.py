"""Whom an MLflow server lets do what, beside MLflow's permissions: `platform.ui --host` and deploy/mlflow_auth.ini name
this. The server imports it, nothing of ours does.

MLflow asks no permission of a user who makes an experiment, a registered model or a prompt, and gives it to them; with
NO_PERMISSIONS as the default that would be the one thing that a new user could do. Here the admin alone does, and who
starts sweeps in their own name: CPN_MLFLOW_MAKERS names them, with commas between.
"""

import os
import re

from flask import Response, request
from mlflow.server import auth
from werkzeug.datastructures import Authorization

from . import first_page as first_page  # replaces MLflow's, as the server without users has it

MAKING = re.compile(r"/(experiments|registered-models)/create|/gateway/|/mcp-servers")
"""In paths of requests that make, or change, what belongs to no experiment or model that the admin could have given."""
SWEEPING = re.compile(r"/(experiments|registered-models)/create")
"""Those of them that a sweep makes."""
MAKERS = "CPN_MLFLOW_MAKERS"


def authenticate() -> Authorization | Response:
    """Return the user of the request, by MLflow's basic authentication; a response that refuses it where there is none,
    or the request makes what only others make.
    """
    answer: Authorization | Response = auth.authenticate_request_basic_auth()
    if isinstance(answer, Response) or request.method in ("GET", "HEAD", "OPTIONS") or not MAKING.search(request.path):
        return answer
    name = answer.username or ""
    if (
        name
        and SWEEPING.search(request.path)
        and name in {each.strip() for each in os.environ.get(MAKERS, "").split(",")}
    ):
        return answer
    refused: Response = auth.make_forbidden_response()
    return answer if auth.store.get_user(name).is_admin else refused
