#!/bin/sh
# Usage: build_debian.sh DIRECTORY [MIRROR]
# Make a Debian of its own with 32- and 64-bit Wine, compilers for Windows programs, the library of Python 3.11, and a
# Windows drive that has started once. Without MIRROR, debootstrap's own default is used. set_up.py calls this as root,
# in mount and process namespaces that end with this script.
#
# Why a Debian of its own: the 32- and the 64-bit packages of Wine must have one and the same version, and the sources
# of a machine often hold two.
set -eu
root=$1
mirror=${2:-}
suite=trixie
python_suite=bookworm # the last one that has Python 3.11

inside() {
  chroot "$root" env -u LC_ALL DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 "$@"
}

echo "step: Debian $suite"
# ca-certificates: the mirror may be an https one. "sid" is the script for every suite that debootstrap does not know.
if [ -n "$mirror" ]; then
  debootstrap --variant=minbase --arch=amd64 --include=ca-certificates "$suite" "$root" "$mirror" \
    /usr/share/debootstrap/scripts/sid
else
  debootstrap --variant=minbase --arch=amd64 --include=ca-certificates "$suite" "$root"
fi
printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
  force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/small-and-fast"
# The way to the mirror is that of the machine: names, proxies, certificates.
cp /etc/resolv.conf "$root/etc/resolv.conf"
apt-config dump Acquire::http Acquire::https >"$root/etc/apt/apt.conf.d/80machine"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

echo "step: Wine and compilers"
inside dpkg --add-architecture i386
inside apt-get -q update
inside apt-get -qy install --no-install-recommends \
  wine wine64 wine32:i386 gcc-mingw-w64-i686-win32 gcc-mingw-w64-x86-64-win32 \
  g++-mingw-w64-i686-win32 mingw-w64-tools libwine-dev
inside apt-get -q clean

echo "step: library of Python 3.11"
# From the suite that has it, with apt's check of signatures, and without mixing the suites in one system.
mkdir -p "$root/stdlib/lists/partial" "$root/stdlib/packages"
sed "s/$suite/$python_suite/" "$root/etc/apt/sources.list" >"$root/stdlib/sources.list"
cat >"$root/stdlib/apt.conf" <<'CONFIGURATION'
Dir::Etc::SourceList "/stdlib/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "/stdlib/lists";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
CONFIGURATION
inside env APT_CONFIG=/stdlib/apt.conf apt-get -q update
inside env APT_CONFIG=/stdlib/apt.conf sh -eu -c 'cd /stdlib/packages
  apt-get -q download libpython3.11-minimal libpython3.11-stdlib
  for package in *.deb; do dpkg-deb -x "$package" /stdlib/unpacked; done'
mv "$root/stdlib/unpacked/usr/lib/python3.11" "$root/stdlib/Lib"
cd "$root/stdlib"
rm -r unpacked lists packages Lib/lib-dynload Lib/test Lib/_sysconfigdata* Lib/sitecustomize.py Lib/EXTERNALLY-MANAGED

echo "step: Windows drive"
# No .NET, no HTML engine and no menu entries: they are not needed, and would be asked for in a window.
inside env -i HOME=/root PATH=/usr/bin:/bin WINEPREFIX=/drive WINEDEBUG=-all \
  WINEDLLOVERRIDES='mscoree,mshtml=;winemenubuilder.exe=' sh -c 'wine wineboot -i 2>&1 | cat; wineserver -w'
[ -e "$root/drive/system.reg" ]
mkdir -p "$root/clone" "$root/python" "$root/shared" "$root/pycache"
