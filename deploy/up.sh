#!/usr/bin/env bash
# Starts the cluster of deploy/compose.yaml on this machine and waits until all of it is healthy: deploy/up.sh
# Arguments go to `docker compose` before `up`: deploy/up.sh -f deploy/compose.gpu.yaml
set -euo pipefail
cd "$(dirname "$0")/.."

python3 deploy/make_env.py
device=cpu
case " $* " in *compose.gpu.yaml*) device=cuda ;; esac
docker build -f deploy/Dockerfile --tag "cpn-platform:${CPN_VERSION:-0.1.0}" --build-arg "DEVICE=$device" .
docker compose -f deploy/compose.yaml "$@" up --detach --wait
echo "MLflow: http://127.0.0.1:${MLFLOW_PORT:-5000} (user admin, MLFLOW_PASSWORD in deploy/.env); Ray: http://127.0.0.1:${RAY_PORT:-8265}"
echo "next: docker compose -f deploy/compose.yaml exec ray-head python -m platform.sweep search_spaces/quickstart.yaml --set resources.storage=/sweeps"
