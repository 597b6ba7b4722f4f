# Sourced by the scripts that install what is missing. install_as_root WHAT PACKAGE… says how to get WHAT and ends the
# script where it cannot be installed; else it sets $sudo, for what only root may do. Then apt_install PACKAGE….

install_as_root() {
	what=$1
	shift
	if ! command -v apt-get >/dev/null; then
		echo "${0##*/}: no $what found, and no apt-get to install it with" >&2
		exit 1
	fi
	sudo=
	[ "$(id -u)" -ne 0 ] || return 0
	if ! command -v sudo >/dev/null; then
		echo "${0##*/}: no $what found, and only root can install it: apt-get install $*" >&2
		exit 1
	fi
	sudo=sudo
}

apt_install() {
	echo "${0##*/}: installing $*" >&2
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
}
