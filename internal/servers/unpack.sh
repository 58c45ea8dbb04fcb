# unpack.sh DIR SUITE PACKAGE[,PACKAGE...] [EXTRA...]
# Unpacks Debian packages with all they depend on (their C library too) into DIR: the machine's own
# packages stay as they are and no root is needed. EXTRA packages come without dependencies.
set -euo pipefail
dir=$1 suite=$2 packages=$3; shift 3
cure="name a server of your own by its URL in the environment instead"
die() { echo "$* ($cure)" >&2; exit 1; }
for c in apt-get apt-cache dpkg; do
  command -v "$c" >/dev/null || die "$c is missing: this server comes as Debian packages, and this is not Debian"
done
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keys" ] || die "Debian's keys are missing: install the package debian-archive-keyring"
mirror=${LEAT_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n1 | tr -d ' ') || true
fi
[ -n "$mirror" ] || die "no Debian mirror among apt's sources: set LEAT_DEBIAN_MIRROR to one"
work=$dir/.apt
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/debs
echo "deb [signed-by=$keys] $mirror $suite main" >"$work/sources.list"
apt=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
     -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status"
     -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=2 -o APT::Update::Error-Mode=any)
: >"$work/status" # nothing counts as installed
apt-get "${apt[@]}" update >&2 || die "apt-get could not read the package list of $suite: check the network"
# Perl, debconf and systemd are what their helper scripts want, not the servers.
mapfile -t names < <(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances ${packages//,/ } | grep -E '^[a-z0-9]' | grep -vE '^(perl|libperl|debconf|dpkg|tar|systemd|adduser|passwd|login)' |
  sed 's/:.*//' | sort -u)
[ "${#names[@]}" -gt 1 ] || die "$suite has no ${packages//,/ or }"
(cd "$work/debs" && apt-get "${apt[@]}" download "${names[@]}" "$@") >&2 || die "apt-get could not download from $suite"
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$dir"; done
rm -rf "$work"
