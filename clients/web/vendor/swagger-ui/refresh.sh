#!/usr/bin/env bash
# Fetch Swagger UI from npm anew: ./refresh.sh [VERSION]. Writes the files, their sha256 and the version.
set -euo pipefail
cd "$(dirname "$0")"
version="${1:-5.35.0}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && npm pack --silent "swagger-ui-dist@$version" >/dev/null && tar -xzf swagger-ui-dist-*.tgz)
for name in swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css LICENSE NOTICE; do
    cp "$folder/package/$name" "$name"
done
# Maps of the sources are not shipped; without this line no browser asks for them.
sed -i -e '/^\/\/# sourceMappingURL=/d' -e 's|/\*# sourceMappingURL=.*\*/||' swagger-ui-bundle.js swagger-ui.css
echo "swagger-ui-dist $version, Apache-2.0, https://registry.npmjs.org/swagger-ui-dist/-/swagger-ui-dist-$version.tgz" >VERSION
sha256sum swagger-ui* LICENSE NOTICE VERSION >SHA256SUMS
