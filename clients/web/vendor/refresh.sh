#!/usr/bin/env bash
# Fetch uPlot from npm anew: ./refresh.sh [VERSION]. Writes the files, their sha256 and the version.
set -euo pipefail
cd "$(dirname "$0")"
version="${1:-1.6.32}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && npm pack --silent "uplot@$version" >/dev/null && tar -xzf uplot-*.tgz)
cp "$folder/package/dist/uPlot.esm.js" uPlot.esm.js
cp "$folder/package/dist/uPlot.d.ts" uPlot.esm.d.ts
cp "$folder/package/dist/uPlot.min.css" uPlot.min.css
cp "$folder/package/LICENSE" uPlot.LICENSE
echo "uplot $version, MIT, https://registry.npmjs.org/uplot/-/uplot-$version.tgz" >uPlot.VERSION
sha256sum uPlot.* >SHA256SUMS
