#!/bin/sh
# Makes the image clary:local for compose.yaml, without asking a registry for anything but its base.
#   image.sh [CLARY]                       on debian:bookworm-slim, which `docker load` brings where there is no registry
#   image.sh --from-this-machine [CLARY]   on this machine's own shell and tools: nothing is fetched at all
set -eu
base=debian:bookworm-slim
if [ "${1:-}" = --from-this-machine ]; then
  base=scratch
  shift
fi
clary=${1:-$(command -v clary)} || {
  echo "image.sh: clary is not installed: name its binary" >&2
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/usr/local/bin" "$work/root/tmp" "$work/root/proc" "$work/root/sys" "$work/root/run" "$work/root/opt" "$work/root/etc"
cp "$clary" "$work/root/usr/local/bin/clary"

# take PROGRAM...: each with the libraries that it is linked with.
take() {
  for program in "$@"; do
    path=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$program") || continue
    case $path in /*) ;; *) path=/usr/bin/$program ;; esac # where the shell has it built in
    [ -x "$path" ] || continue
    { echo "$path" && ldd "$path" 2>/dev/null | grep -o '/[^ ]*'; } | sort -u | while read -r file; do
      mkdir -p "$work/root${file%/*}"
      cp -L "$file" "$work/root$file"
    done
  done
}
if [ "$base" = scratch ]; then
  take "$clary" sh bash cat chmod cp cut date echo env false grep head hostname id ls mkdir mv printf ps rm sed seq sleep sort stat tail tar touch tr true wc
  mkdir -p "$work/root/bin"
  [ -e "$work/root/bin/sh" ] || cp -L /bin/sh "$work/root/bin/sh"
  printf 'root:x:0:0:root:/root:/bin/sh\n' >"$work/root/etc/passwd"
  printf 'root:x:0:\n' >"$work/root/etc/group"
fi
printf 'FROM %s\nCOPY root /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nENTRYPOINT ["/usr/local/bin/clary"]\n' "$base" >"$work/Dockerfile"
docker build --quiet --tag clary:local "$work"
