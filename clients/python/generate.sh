#!/bin/sh
# Makes src/leat/v1 from schemas/envelope; `generate.sh --check` only compares. The compiler comes into the folder TOOLS
# (default: bin/ of the repository).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${TOOLS:-$root/bin}/python
[ -x "$tools/bin/python" ] || python3 -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check grpcio-tools==1.75.1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$root/schemas/envelope"
"$tools/bin/python" -m grpc_tools.protoc -I. --python_out="$out" --pyi_out="$out" leat/v1/event.proto leat/v1/subscriber.proto
if [ "${1:-}" = "--check" ]; then
	for f in "$out"/leat/v1/*; do
		cmp "$f" "$here/src/leat/v1/$(basename "$f")" || { echo "clients/python: generated code is old: run clients/python/generate.sh" >&2; exit 1; }
	done
	exit 0
fi
cp "$out"/leat/v1/* "$here/src/leat/v1/"
