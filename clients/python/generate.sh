#!/usr/bin/env bash
# Generates the messages and stubs from proto/ into tally/v1.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m grpc_tools.protoc -I ../../proto --python_out=. --pyi_out=. --grpc_python_out=. ../../proto/tally/v1/*.proto
