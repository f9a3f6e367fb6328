# Sourced by the scripts beside it, which make a Debian package each: they put its
# files below $package and call make_package.
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/../common.bash"

tree=$(mktemp -d)
remove_tree() {
    rm -rf "$tree"
}
trap remove_tree EXIT
chmod 755 "$tree"
package=$tree/package

# The packages, and the least versions of them, that a file of the package $1 takes
# its symbols from. dpkg-shlibdeps reads the package's name from a source tree.
libraries_of() {
    local libraries
    mkdir "$tree/debian"
    printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$1" "$1" >"$tree/debian/control"
    libraries=$(cd "$tree" && dpkg-shlibdeps -O "${2#"$tree/"}" | sed -n 's/^shlibs:Depends=//p')
    [[ -n $libraries ]] || fail "no dependencies of ${2#"$package"} found"
    echo "$libraries"
}

# Makes the package $1 and writes it into the folder $2. Standard input is the rest
# of its control file: Section, Depends, Description.
#
# REVISION (1 when left out) is the part of its version after the hyphen. As in
# Debian's own tools, DEBFULLNAME and DEBEMAIL name the package's maintainer:
# whoever runs this when left out.
make_package() {
    local name=$1 folder=$2 upstream_version version release suite user maintainer architecture file
    upstream_version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
    # So that the package for one release of Debian sorts before that for the next.
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "deb${VERSION_ID:-$VERSION_CODENAME}")
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    version=$upstream_version-${REVISION:-1}+$release
    user=$(id --user --name)
    maintainer="${DEBFULLNAME:-$user} <${DEBEMAIL:-$user@$(uname --nodename)}>"
    architecture=$(dpkg --print-architecture)

    local documents=$package/usr/share/doc/$name
    install -D -m 644 LICENSE "$documents/copyright"
    if [[ -e CHANGELOG.md ]]; then
        gzip --best --no-name <CHANGELOG.md >"$documents/changelog.gz"
    fi
    gzip --best --no-name >"$documents/changelog.Debian.gz" <<END
$name ($version) $suite; urgency=medium

  * user_logins_sqs $upstream_version; changelog.gz lists its changes.

 -- $maintainer  $(date --rfc-email)
END

    mkdir "$package/DEBIAN"
    {
        cat <<END
Package: $name
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Priority: optional
Installed-Size: $(du --summarize --block-size 1024 "$package" | cut --fields 1)
END
        cat
    } >"$package/DEBIAN/control"

    mkdir -p "$folder"
    file=$folder/${name}_${version}_$architecture.deb
    # xz: what every release can read.
    dpkg-deb --build --root-owner-group -Zxz "$package" "$file" >/dev/null
    say "$file"
}
