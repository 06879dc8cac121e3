#!/bin/sh
# Builds the examples' programs, packs them as images with no container engine, and with --load puts the images
# into the running cluster's node.
#
#	examples/build.sh [--load]
#
# SKIFF names the skiff program (bin/skiff), GO the go command (go), OUT where the results go (examples/shop/out).
set -eu
cd "$(dirname "$0")/.."
skiff=${SKIFF:-bin/skiff}
go=${GO:-go}
out=${OUT:-examples/shop/out}

mkdir -p "$out"
CGO_ENABLED=0 "$go" build -trimpath -ldflags="-s -w" -o "$out/shop" ./examples/shop
"$skiff" image pack example.skiff.dev/shop:1 \
	--add "$out/shop:/shop" --entrypoint /shop --user 65532:65532 -o "$out/shop.tar"

if [ "${1:-}" = --load ]; then
	"$skiff" image load "$out/shop.tar"
fi
