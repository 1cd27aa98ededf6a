#!/bin/sh
# Installs Clary from the folder that this script is in, upgrades it in place, or takes it away again. It needs no
# network, changes nothing that is as it should be, and never touches a cluster's data unless told to --purge it.
#
#   ./install.sh                 install or upgrade; running services keep the old binary until they are restarted
#   ./install.sh --restart       and restart those of Clary's services that run
#   ./install.sh verify          compare every file here with SHA256SUMS, and do nothing
#   ./install.sh uninstall       remove what was installed; /etc/clary and /var/lib/clary stay
#   ./install.sh uninstall --purge      and delete these two, and the user clary
#   ./install.sh [uninstall] --root DIR    below DIR, for an image of a machine: no user is made, no service is told
set -eu
umask 022 # whatever that of who runs it

prefix=/usr/local
services='clary-server clary-agent clary-router'
# Where a bundle's folders go, below the prefix. The units name the binary where the first line puts it.
folders='bin:bin
systemd:lib/systemd/system
docs:share/doc/clary
completions/bash:share/bash-completion/completions
completions/zsh:share/zsh/site-functions
completions/fish:share/fish/vendor_completions.d'

say() { echo "install: $*"; }
fail() {
  echo "install: $*" >&2
  exit 1
}
usage() {
  sed -n '/^#   /s/^# *//p' "$0" >&2
  exit 2
}

# read_flags: what is to be done, and where.
read_flags() {
  do=install root='' restart=no purge=no
  while [ $# -gt 0 ]; do
    case "$1" in
      install | uninstall | verify) do=$1 ;;
      --root)
        case "${2:-}" in
          '') usage ;; # a variable that is not set would mean this machine
          /*) root=${2%/} ;;
          *) root=$PWD/${2%/} ;;
        esac
        shift
        ;;
      --restart) restart=yes ;;
      --purge) purge=yes ;;
      -h | --help)
        sed -n '2,/^set /{/^#/s/^#[ ]\{0,1\}//p;}' "$0"
        exit 0
        ;;
      *)
        echo "install: '$1' is unknown" >&2
        usage
        ;;
    esac
    shift
  done
  [ "$purge" = no ] || [ "$do" = uninstall ] || fail "--purge goes with uninstall"
  manifest=$root$prefix/share/clary/installed
}

# live says whether this machine itself is meant, and not an image of one.
live() { [ -z "$root" ]; }
managed() { live && [ -d /run/systemd/system ]; }

# runs SERVICE: it does, or is about to, as one that is started again and again.
runs() {
  case "$(systemctl is-active "$1" 2>/dev/null)" in
    active | activating | reloading | deactivating) ;;
    *) return 1 ;;
  esac
}

need_root() {
  live || return 0
  [ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
}

verify() {
  [ -f SHA256SUMS ] || fail "SHA256SUMS is missing: this is not a whole bundle (make release makes one)"
  wrong=$(sha256sum --check --quiet --strict SHA256SUMS 2>&1) || fail "the bundle is damaged, copy it again:
$wrong"
  listed=$(cut -c 67- SHA256SUMS | sort)
  present=$(find . -type f ! -name SHA256SUMS | sed 's,^\./,,' | sort)
  [ "$listed" = "$present" ] || fail "the bundle has other files than SHA256SUMS names: unpack it into an empty folder"
}

fits() {
  [ "$(uname -s)" = Linux ] || fail "Clary runs on Linux, and this is $(uname -s)"
  built=$(cat PLATFORM)
  case "$(uname -m)" in
    x86_64) here=linux-amd64 ;;
    aarch64) here=linux-arm64 ;;
    *) here=linux-$(uname -m) ;;
  esac
  [ "$built" = "$here" ] || fail "this bundle is for $built, and this machine is $here"
  version=$(bin/clary --version 2>&1) || fail "bin/clary does not run here (it needs glibc 2.34, as in Debian 12, Ubuntu 22.04 or RHEL 9):
$version"
}

# plan: where each file of the bundle goes, as FROM TO MODE, and of these what is not there as it should be. A machine that has
# other things to do takes a hundredth of a second for each program that is started, so that none is for each file.
plan() {
  echo "$folders" | while IFS=: read -r from to; do
    [ -d "$from" ] || continue
    find "$from" -type f | sort | while read -r file; do
      mode=0644
      [ ! -x "$file" ] || mode=0755
      echo "$prefix/$to/${file#"$from"/}" >>"$new_manifest"
      echo "$file $root$prefix/$to/${file#"$from"/} $mode"
    done
  done >"$work/plan"
  awk 'NR == FNR { sum[substr($0, 67)] = $1; next } { print sum[$1] "  " $2 }' SHA256SUMS "$work/plan" >"$work/wanted"
  LC_ALL=C sha256sum --check "$work/wanted" 2>/dev/null | sed -n 's/: FAILED.*//p' >"$work/others"
  awk 'NR == FNR { other[$0]; next } $2 in other' "$work/others" "$work/plan" >"$work/changes"
}

# halves are the copies that are not in their places yet.
halves() { awk '{ print $2 ".new" }' "$work/changes"; }

# place copies what differs, all of it beside where it goes, and then puts it there: there is never half of a file.
place() {
  moves=$(echo "$folders" | while IFS=: read -r from to; do printf '%s;' "s,^$from/\(.*\),${prefix#/}/$to/\1.new,"; done)
  mkdir -p "$root/"
  awk '{ print $1 }' "$work/changes" | tar -cf - --mode=u=rwX,go=rX --transform="$moves" -T - | tar -xmf - -C "$root/" --no-same-owner
  halves | xargs -r sync
  while read -r from to mode; do mv -fT "$to.new" "$to"; done <"$work/changes" # a program that runs keeps the file it was started from
  for mode in 0644 0755; do
    awk -v mode=$mode '$3 == mode { print $2 }' "$work/plan" | xargs -r chmod "$mode"
  done
}

# forget removes what an earlier version had installed and this one has not.
forget() {
  [ -f "$manifest" ] || return 0
  sort "$new_manifest" >"$new_manifest.sorted"
  sort "$manifest" | comm -23 - "$new_manifest.sorted" | while read -r file; do
    rm -f "$root$file"
    say "$file is no more"
  done
}

make_user() {
  live || return 0
  id clary >/dev/null 2>&1 && return 0
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin clary
  say "user clary is made, as which coordinators run"
}

install_bundle() {
  need_root
  verify
  fits
  work=$(mktemp -d)
  : >"$work/changes"
  trap 'halves | xargs -r rm -f; rm -rf "$work"' EXIT
  trap 'exit 130' HUP INT TERM
  new_manifest=$work/installed
  make_user
  plan
  changed=$(wc -l <"$work/changes")
  place
  forget
  mkdir -p "${manifest%/*}"
  cp "$new_manifest" "$manifest.new"
  mv -f "$manifest.new" "$manifest" # half of a list would leave files behind
  [ -d "$root/etc/clary" ] || install -d -m 0755 "$root/etc/clary"
  if managed && [ "$changed" -gt 0 ]; then systemctl daemon-reload; fi
  say "$version: $changed of $(wc -l <"$manifest") files were new or different"
  managed || return 0
  for service in $services; do
    runs "$service" || continue
    if [ "$restart" = yes ]; then
      systemctl restart "$service"
      say "$service is restarted"
    elif [ "$changed" -gt 0 ]; then
      say "$service runs on with the old binary: systemctl restart $service, one coordinator at a time"
    fi
  done
}

uninstall() {
  need_root
  [ -f "$manifest" ] || [ "$purge" = yes ] || {
    say "nothing is installed"
    return 0
  }
  if [ "$purge" = yes ] && live && grep -qs '^clary-shim' /proc/[0-9]*/comm; then
    fail "tasks still run here (clary-shim): end them with clary cancel, or with kill"
  fi
  if managed; then
    for service in $services; do
      ! runs "$service" || fail "$service runs: systemctl disable --now $service, then run this again"
    done
    for service in $services; do
      systemctl disable --quiet "$service" 2>/dev/null || true
    done
  fi
  if [ -f "$manifest" ]; then
    while read -r file; do echo "$root$file"; done <"$manifest" | xargs -r rm -f
    for folder in doc/clary clary; do # they are Clary's own
      [ ! -d "$root$prefix/share/$folder" ] || rm -rf "$root$prefix/share/$folder"
    done
    say "removed"
  fi
  ! managed || systemctl daemon-reload
  if [ "$purge" = yes ]; then
    rm -rf "$root/etc/clary" "$root/var/lib/clary"
    ! live || ! id clary >/dev/null 2>&1 || userdel clary
    say "the data of this machine is deleted, too"
  else
    say "/etc/clary and /var/lib/clary stay: uninstall --purge deletes them"
  fi
}

read_flags "$@"
cd "$(dirname "$0")"
case "$do" in
  install) install_bundle ;;
  uninstall) uninstall ;;
  verify)
    verify
    say "every file is as SHA256SUMS says"
    ;;
esac
