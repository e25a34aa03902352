#!/bin/sh
# Builds the double of MXAccess for 32-bit programs: build.sh SOURCES OUT. It runs in the Debian root of the Wine tests.
set -eu
sources=$1 out=$2
wine=/usr/lib/i386-linux-gnu/wine/i386-windows
cd "$out"
for name in lmx_double alarm_double; do
  for kind in t h; do
    i686-w64-mingw32-widl --win32 -I/usr/include/wine/wine/windows -L"$wine" "-$kind" \
      -o "$name.$(test $kind = t && echo tlb || echo h)" "$sources/$name.idl"
  done
done
cp "$sources/lmx_double.rc" .
i686-w64-mingw32-windres lmx_double.rc -o resources.o
i686-w64-mingw32-g++ -std=c++20 -O1 -g0 -s -Wall -Wextra -Werror -shared -static -I. -I"$sources" \
  "$sources/dll.cpp" "$sources/server.cpp" "$sources/galaxy.cpp" \
  "$sources/alarms.cpp" "$sources/consumer.cpp" resources.o "$sources/lmx_double.def" \
  -o LmxDouble.part -lole32 -loleaut32 -luuid -Wl,--enable-stdcall-fixup
mv LmxDouble.part LmxDouble.dll
