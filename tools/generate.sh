#!/bin/sh
# Makes the Go code of schemas/envelope from its .proto files; `generate.sh --check` only compares.
# The tools are those of tools/go.mod, built into the folder TOOLS (default: bin/ of the repository).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
tools=${TOOLS:-$root/bin}
mkdir -p "$tools"
(cd "$root/tools" && GOBIN="$tools" go install tool)
PATH="$tools:$PATH"
export PATH
cd "$root/schemas/envelope"
buf lint
buf format --diff --exit-code >/dev/null || { echo "schemas/envelope: run \`buf format -w\` there" >&2; exit 1; }
if [ "${1:-}" = "--check" ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
	buf generate --output "$out"
	diff -r "$out/leatv1" leatv1 || { echo "schemas/envelope: generated code is old: run \`make generate\`" >&2; exit 1; }
	exit 0
fi
rm -rf leatv1
buf generate
